"""The papers behind methods whose messages are more than parameters, as in `papers.py`."""

from __future__ import annotations

from dbwjax.policies.papers import Paper

CONSENSUS_ADMM = Paper(
    "Shi, Ling, Yuan, Wu, Yin 2014, arXiv 1307.5561",
    """@misc{shi2014linear,
  title = {On the Linear Convergence of the {ADMM} in Decentralized Consensus Optimization},
  author = {Shi, Wei and Ling, Qing and Yuan, Kun and Wu, Gang and Yin, Wotao},
  year = {2014},
  eprint = {1307.5561},
  archivePrefix = {arXiv},
  primaryClass = {math.OC}
}""",
)

SSDA = Paper(
    "Scaman, Bach, Bubeck, Lee, Massoulie 2017, arXiv 1702.08704",
    """@misc{scaman2017optimal,
  title = {Optimal Algorithms for Smooth and Strongly Convex Distributed Optimization in Networks},
  author = {Scaman, Kevin and Bach, Francis and Bubeck, S{\\'e}bastien and Lee, Yin Tat and Massouli{\\'e}, Laurent},
  year = {2017},
  eprint = {1702.08704},
  archivePrefix = {arXiv},
  primaryClass = {math.OC}
}""",
)

MSPD = Paper(
    "Scaman, Bach, Bubeck, Lee, Massoulie 2018, arXiv 1806.00291",
    """@misc{scaman2018optimal,
  title = {Optimal Algorithms for Non-Smooth Distributed Optimization in Networks},
  author = {Scaman, Kevin and Bach, Francis and Bubeck, S{\\'e}bastien and Lee, Yin Tat and Massouli{\\'e}, Laurent},
  year = {2018},
  eprint = {1806.00291},
  archivePrefix = {arXiv},
  primaryClass = {math.OC}
}""",
)

ENCODED = Paper(
    "Karakus, Sun, Diggavi, Yin 2017, arXiv 1711.04969",
    """@misc{karakus2017straggler,
  title = {Straggler Mitigation in Distributed Optimization Through Data Encoding},
  author = {Karakus, Can and Sun, Yifan and Diggavi, Suhas and Yin, Wotao},
  year = {2017},
  eprint = {1711.04969},
  archivePrefix = {arXiv}
}""",
)

DIGING = Paper(
    "Nedic, Olshevsky, Shi 2017, arXiv 1607.03218",
    """@article{nedic2017achieving,
  title = {Achieving Geometric Convergence for Distributed Optimization Over Time-Varying Graphs},
  author = {Nedic, Angelia and Olshevsky, Alex and Shi, Wei},
  journal = {SIAM Journal on Optimization},
  volume = {27},
  number = {4},
  year = {2017},
  eprint = {1607.03218},
  archivePrefix = {arXiv}
}""",
)

DSGT = Paper(
    "Pu, Nedic 2018, arXiv 1805.11454",
    """@misc{pu2018distributed,
  title = {Distributed Stochastic Gradient Tracking Methods},
  author = {Pu, Shi and Nedic, Angelia},
  year = {2018},
  eprint = {1805.11454},
  archivePrefix = {arXiv}
}""",
)

D2 = Paper(
    "Tang et al. 2018, arXiv 1803.07068",
    """@misc{tang2018d2,
  title = {{D2}: Decentralized Training over Decentralized Data},
  author = {Tang, Hanlin and Lian, Xiangru and Yan, Ming and Zhang, Ce and Liu, Ji},
  year = {2018},
  eprint = {1803.07068},
  archivePrefix = {arXiv}
}""",
)

QUASI_GLOBAL = Paper(
    "Lin, Karimireddy, Stich, Jaggi 2021, arXiv 2102.04761",
    """@misc{lin2021quasi,
  title = {Quasi-Global Momentum: Accelerating Decentralized Deep Learning on Heterogeneous Data},
  author = {Lin, Tao and Karimireddy, Sai Praneeth and Stich, Sebastian U. and Jaggi, Martin},
  year = {2021},
  eprint = {2102.04761},
  archivePrefix = {arXiv}
}""",
)

DUAL_AVERAGING = Paper(
    "Duchi, Agarwal, Wainwright 2012, arXiv 1005.2012",
    """@article{duchi2012dual,
  title = {Dual Averaging for Distributed Optimization: Convergence Analysis and Network Scaling},
  author = {Duchi, John C. and Agarwal, Alekh and Wainwright, Martin J.},
  journal = {IEEE Transactions on Automatic Control},
  volume = {57},
  number = {3},
  pages = {592--606},
  year = {2012},
  eprint = {1005.2012},
  archivePrefix = {arXiv}
}""",
)

CHOCO = Paper(
    "Koloskova, Stich, Jaggi 2019, arXiv 1902.00340",
    """@misc{koloskova2019decentralized,
  title = {Decentralized Stochastic Optimization and Gossip Algorithms with Compressed Communication},
  author = {Koloskova, Anastasia and Stich, Sebastian U. and Jaggi, Martin},
  year = {2019},
  eprint = {1902.00340},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}""",
)

DCD_ECD = Paper(
    "Tang, Gan, Zhang, Zhang, Liu 2018, arXiv 1803.06443",
    """@misc{tang2018communication,
  title = {Communication Compression for Decentralized Training},
  author = {Tang, Hanlin and Gan, Shaoduo and Zhang, Ce and Zhang, Tong and Liu, Ji},
  year = {2018},
  eprint = {1803.06443},
  archivePrefix = {arXiv},
  primaryClass = {cs.LG}
}""",
)
