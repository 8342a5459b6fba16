"""The papers behind the methods: how a table names them, and how to cite them."""

from __future__ import annotations

from typing import NamedTuple


class Paper(NamedTuple):
    """One paper."""

    short: str  # authors, year, eprint
    bibtex: str  # one valid entry


CB_DYBW = Paper(
    "Xiong, Yan, Singh, Li 2021, arXiv 2102.06280",
    """@misc{xiong2021straggler,
  title = {Straggler-Resilient Distributed Machine Learning with Dynamic Backup Workers},
  author = {Xiong, Guojun and Yan, Gang and Singh, Rahul and Li, Jian},
  year = {2021},
  eprint = {2102.06280},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}""",
)

HOP = Paper(
    "Luo, Lin, Zhuo, Qian 2019, arXiv 1902.01064",
    """@misc{luo2019hop,
  title = {Hop: Heterogeneity-Aware Decentralized Training},
  author = {Luo, Qinyi and Lin, Jinkun and Zhuo, Youwei and Qian, Xuehai},
  year = {2019},
  eprint = {1902.01064},
  archivePrefix = {arXiv},
  primaryClass = {cs.DC}
}""",
)

SYNCHRONOUS_SGD = Paper(
    "Chen et al. 2016, arXiv 1604.00981",
    """@misc{chen2016revisiting,
  title = {Revisiting Distributed Synchronous {SGD}},
  author = {Chen, Jianmin and Pan, Xinghao and Monga, Rajat and Bengio, Samy and Jozefowicz, Rafal},
  year = {2016},
  eprint = {1604.00981},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}""",
)

D_PSGD = Paper(
    "Lian et al. 2017, arXiv 1705.09056",
    """@misc{lian2017can,
  title = {Can Decentralized Algorithms Outperform Centralized Algorithms? {A} Case Study for Decentralized Parallel
           Stochastic Gradient Descent},
  author = {Lian, Xiangru and Zhang, Ce and Zhang, Huan and Hsieh, Cho-Jui and Zhang, Wei and Liu, Ji},
  year = {2017},
  eprint = {1705.09056},
  archivePrefix = {arXiv},
  primaryClass = {math.OC}
}""",
)

AD_PSGD = Paper(
    "Lian, Zhang, Zhang, Liu 2018, arXiv 1710.06952",
    """@misc{lian2018asynchronous,
  title = {Asynchronous Decentralized Parallel Stochastic Gradient Descent},
  author = {Lian, Xiangru and Zhang, Wei and Zhang, Ce and Liu, Ji},
  year = {2018},
  eprint = {1710.06952},
  archivePrefix = {arXiv}
}""",
)

RANDOMIZED_GOSSIP = Paper(
    "Boyd, Ghosh, Prabhakar, Shah 2006",
    """@misc{boyd2006randomized,
  title = {Randomized Gossip Algorithms},
  author = {Boyd, Stephen and Ghosh, Arpita and Prabhakar, Balaji and Shah, Devavrat},
  year = {2006},
  howpublished = {IEEE Transactions on Information Theory 52(6)}
}""",
)

INCREMENTAL = Paper(
    "Johansson, Rabi, Johansson 2009",
    """@misc{johansson2009randomized,
  title = {A Randomized Incremental Subgradient Method for Distributed Optimization in Networked Systems},
  author = {Johansson, B. and Rabi, M. and Johansson, M.},
  year = {2009},
  howpublished = {SIAM Journal on Optimization 20(3)}
}""",
)

SWIFT = Paper(
    "Bornstein, Rabbani, Wang, Bedi, Huang 2023, arXiv 2210.14026",
    """@misc{bornstein2023swift,
  title = {{SWIFT}: Rapid Decentralized Federated Learning via Wait-Free Model Communication},
  author = {Bornstein, Marco and Rabbani, Tahseen and Wang, Evan and Bedi, Amrit Singh and Huang, Furong},
  year = {2023},
  eprint = {2210.14026},
  archivePrefix = {arXiv}
}""",
)

A2CID2 = Paper(
    "Nabli, Belilovsky, Oyallon 2023, arXiv 2306.08289",
    """@misc{nabli2023acid,
  title = {{A2CiD2}: Accelerating Asynchronous Communication in Decentralized Deep Learning},
  author = {Nabli, Adel and Belilovsky, Eugene and Oyallon, Edouard},
  year = {2023},
  eprint = {2306.08289},
  archivePrefix = {arXiv}
}""",
)

K_SYNC = Paper(
    "Dutta et al. 2018, arXiv 1803.01113",
    """@misc{dutta2018slow,
  title = {Slow and Stale Gradients Can Win the Race: Error-Runtime Trade-offs in Distributed {SGD}},
  author = {Dutta, Sanghamitra and Joshi, Gauri and Ghosh, Soumyadip and Dube, Parijat and Nagpurkar, Priya},
  year = {2018},
  eprint = {1803.01113},
  archivePrefix = {arXiv}
}""",
)

SSP = Paper(
    "Ho et al. 2013, NIPS 26",
    """@inproceedings{ho2013more,
  title = {More Effective Distributed {ML} via a Stale Synchronous Parallel Parameter Server},
  author = {Ho, Qirong and Cipar, James and Cui, Henggang and Lee, Seunghak and Kim, Jin Kyu and Gibbons, Phillip B. and
            Gibson, Garth A. and Ganger, Greg and Xing, Eric P.},
  booktitle = {Advances in Neural Information Processing Systems 26},
  year = {2013}
}""",
)

DBW = Paper(
    "Xu, Neglia, Sebastianelli 2020, arXiv 2004.14696",
    """@misc{xu2020dynamic,
  title = {Dynamic Backup Workers for Parallel Machine Learning},
  author = {Xu, Chuan and Neglia, Giovanni and Sebastianelli, Nicola},
  year = {2020},
  eprint = {2004.14696},
  archivePrefix = {arXiv},
  primaryClass = {cs.DC}
}""",
)

DOWNPOUR = Paper(
    "Dean et al. 2012, NIPS 25",
    """@inproceedings{dean2012large,
  title = {Large Scale Distributed Deep Networks},
  author = {Dean, Jeffrey and Corrado, Greg S. and Monga, Rajat and Chen, Kai and Devin, Matthieu and Le, Quoc V. and
            Mao, Mark Z. and Ranzato, Marc'Aurelio and Senior, Andrew and Tucker, Paul and Yang, Ke and Ng, Andrew Y.},
  booktitle = {Advances in Neural Information Processing Systems 25},
  year = {2012}
}""",
)
