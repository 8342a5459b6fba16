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

AD_PSGD = Paper(
    "Lian, Zhang, Zhang, Liu 2017, arXiv 1710.06952",
    """@misc{lian2017asynchronous,
  title = {Asynchronous Decentralized Parallel Stochastic Gradient Descent},
  author = {Lian, Xiangru and Zhang, Wei and Zhang, Ce and Liu, Ji},
  year = {2017},
  eprint = {1710.06952},
  archivePrefix = {arXiv}
}""",
)

GOSSIP = Paper(
    "Boyd, Ghosh, Prabhakar, Shah 2006, IEEE Trans. Inf. Theory 52(6)",
    """@article{boyd2006randomized,
  title = {Randomized Gossip Algorithms},
  author = {Boyd, Stephen and Ghosh, Arpita and Prabhakar, Balaji and Shah, Devavrat},
  journal = {IEEE Transactions on Information Theory},
  volume = {52},
  number = {6},
  pages = {2508--2530},
  year = {2006}
}""",
)

TOKEN = Paper(
    "Mao et al. 2018, arXiv 1804.06568",
    """@misc{mao2018walkman,
  title = {Walkman: A Communication-Efficient Random-Walk Algorithm for Decentralized Optimization},
  author = {Mao, Xianghui and Yuan, Kun and Hu, Yubin and Gu, Yuantao and Sayed, Ali H. and Yin, Wotao},
  year = {2018},
  eprint = {1804.06568},
  archivePrefix = {arXiv},
  primaryClass = {math.OC}
}""",
)

SWIFT = Paper(
    "Bornstein et al. 2022, arXiv 2210.14026",
    """@misc{bornstein2022swift,
  title = {{SWIFT}: Rapid Decentralized Federated Learning via Wait-Free Model Communication},
  author = {Bornstein, Marco and Rabbani, Tahseen and Wang, Evan and Bedi, Amrit Singh and Huang, Furong},
  year = {2022},
  eprint = {2210.14026},
  archivePrefix = {arXiv}
}""",
)

ACID = Paper(
    "Nabli, Belilovsky, Oyallon 2023, arXiv 2306.08289",
    """@misc{nabli2023acid,
  title = {{A2CiD2}: Accelerating Asynchronous Communication in Decentralized Deep Learning},
  author = {Nabli, Adel and Belilovsky, Eugene and Oyallon, Edouard},
  year = {2023},
  eprint = {2306.08289},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}""",
)

SGP = Paper(
    "Assran, Loizou, Ballas, Rabbat 2018, arXiv 1811.10792",
    """@misc{assran2018stochastic,
  title = {Stochastic Gradient Push for Distributed Deep Learning},
  author = {Assran, Mahmoud and Loizou, Nicolas and Ballas, Nicolas and Rabbat, Michael},
  year = {2018},
  eprint = {1811.10792},
  archivePrefix = {arXiv}
}""",
)

AGP = Paper(
    "Assran, Rabbat 2018, arXiv 1803.08950",
    """@misc{assran2018asynchronous,
  title = {Asynchronous Gradient-Push},
  author = {Assran, Mahmoud and Rabbat, Michael},
  year = {2018},
  eprint = {1803.08950},
  archivePrefix = {arXiv}
}""",
)

PRAGUE = Paper(
    "Luo, He, Zhuo, Qian 2019, arXiv 1909.08029",
    """@misc{luo2019heterogeneity,
  title = {Heterogeneity-Aware Asynchronous Decentralized Training},
  author = {Luo, Qinyi and He, Jiaao and Zhuo, Youwei and Qian, Xuehai},
  year = {2019},
  eprint = {1909.08029},
  archivePrefix = {arXiv},
  primaryClass = {cs.DC},
  note = {Published as Prague: High-Performance Heterogeneity-Aware Asynchronous Decentralized Training, ASPLOS 2020}
}""",
)

DSGD_AAU = Paper(
    "Xiong, Yan, Wang, Li 2023, arXiv 2306.06559",
    """@misc{xiong2023straggler,
  title = {Straggler-Resilient Decentralized Learning via Adaptive Asynchronous Updates},
  author = {Xiong, Guojun and Yan, Gang and Wang, Shiqiang and Li, Jian},
  year = {2023},
  eprint = {2306.06559},
  archivePrefix = {arXiv}
}""",
)

MATCHA = Paper(
    "Wang, Sahu, Yang, Joshi, Kar 2019, arXiv 1905.09435",
    """@misc{wang2019matcha,
  title = {{MATCHA}: Speeding Up Decentralized {SGD} via Matching Decomposition Sampling},
  author = {Wang, Jianyu and Sahu, Anit Kumar and Yang, Zhouyi and Joshi, Gauri and Kar, Soummya},
  year = {2019},
  eprint = {1905.09435},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}""",
)

LOCAL_SGD = Paper(
    "Stich 2018, arXiv 1805.09767",
    """@misc{stich2018local,
  title = {Local {SGD} Converges Fast and Communicates Little},
  author = {Stich, Sebastian U.},
  year = {2018},
  eprint = {1805.09767},
  archivePrefix = {arXiv}
}""",
)

DSPODFL = Paper(
    "Zehtabi et al. 2024, arXiv 2402.03448",
    """@misc{zehtabi2024decentralized,
  title = {Decentralized Sporadic Federated Learning: A Unified Algorithmic Framework with Convergence Guarantees},
  author = {Zehtabi, Shahryar and Han, Dong-Jun and Parasnis, Rohit and Hosseinalipour, Seyyedali and
            Brinton, Christopher G.},
  year = {2024},
  eprint = {2402.03448},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}""",
)

SUBGRADIENT = Paper(
    "Nedic, Ozdaglar 2009, IEEE Trans. Autom. Control 54(1)",
    """@article{nedic2009distributed,
  title = {Distributed Subgradient Methods for Multi-Agent Optimization},
  author = {Nedic, Angelia and Ozdaglar, Asuman},
  journal = {IEEE Transactions on Automatic Control},
  volume = {54},
  number = {1},
  pages = {48--61},
  year = {2009}
}""",
)

INCREMENTAL = Paper(
    "Johansson, Rabi, Johansson 2009, SIAM J. Optim. 20(3)",
    """@article{johansson2009randomized,
  title = {A Randomized Incremental Subgradient Method for Distributed Optimization in Networked Systems},
  author = {Johansson, B. and Rabi, M. and Johansson, M.},
  journal = {SIAM Journal on Optimization},
  volume = {20},
  number = {3},
  year = {2009}
}""",
)
