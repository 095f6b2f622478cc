import gc

import pandas  # noqa: F401
import torch  # noqa: F401
from transformers import Trainer  # noqa: F401

gc.freeze()  # what the libraries hold stays: a collection, which every training asks for, need not look through it
