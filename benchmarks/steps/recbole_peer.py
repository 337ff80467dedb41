"""Epochs of RecBole's own SASRec, for a Python that has RecBole 1.2.1 and not this project.

``python recbole_peer.py FOLDER NAME`` reads ``FOLDER/NAME/NAME.inter``, prints the number of
training samples, and then for every line that it is sent trains one epoch and prints the seconds on the
clock and on the processor.
"""

import logging
import sys
import time

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

OPTIONS = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    "MAX_ITEM_LIST_LENGTH": 20,
    "train_neg_sample_args": None,
    "loss_type": "CE",
    "train_batch_size": 1024,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size": 64,
    "inner_size": 256,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "use_gpu": False,
    "show_progress": False,
}


def main() -> None:
    folder, name = sys.argv[1:]
    torch.set_num_threads(1)
    sys.argv = sys.argv[:1]  # which RecBole would read
    config = Config(model="SASRec", dataset=name, config_dict={**OPTIONS, "data_path": folder})
    init_seed(0, True)
    logging.disable(logging.INFO)
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = SASRec(config, train_data.dataset)
    trainer = Trainer(config, model)
    print(f"samples {len(train_data.dataset)}", flush=True)
    for epoch, _ in enumerate(sys.stdin):
        started, on_processor = time.perf_counter(), time.process_time()
        trainer._train_epoch(train_data, epoch)
        print(time.perf_counter() - started, time.process_time() - on_processor, flush=True)


if __name__ == "__main__":
    main()
