"""The same fine-tuning as `torch_loop.py`, written as a LightningModule and run by its Trainer."""

from __future__ import annotations

import time

import lightning
import torch
from events import read_arguments, read_split, say
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch_loop import BATCH, Photos, create_model, freeze_batch_norm


class Classifier(lightning.LightningModule):
    """EfficientNet-B0, BatchNorm in eval mode, AdamW by a one-cycle policy."""

    def __init__(self, model: torch.nn.Module, steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, steps
        self.right: list[torch.Tensor] = []

    def on_train_epoch_start(self) -> None:
        freeze_batch_norm(self.model)
        self.started = time.perf_counter()

    def training_step(self, batch, index):
        return cross_entropy(self.model(batch[0].contiguous(memory_format=torch.channels_last)), batch[1])

    def on_validation_epoch_start(self) -> None:
        self.right = []
        if not self.trainer.sanity_checking:
            self.took = time.perf_counter() - self.started

    def validation_step(self, batch, index) -> None:
        self.right.append((self.model(batch[0]).argmax(1) == batch[1]).float())

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            rate = self.trainer.num_training_batches * BATCH / self.took
            accuracy = float(torch.cat(self.right).mean())
            epoch = self.current_epoch + 1
            say("epoch", stage="finetune", epoch=epoch, images_per_s=rate, val_accuracy=accuracy)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-4, self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main() -> None:
    arguments = read_arguments(("train",))
    lightning.seed_everything(arguments.seed, verbose=False)
    sides, names = read_split(arguments.split, arguments.photos)
    train = DataLoader(Photos(sides["train"], True), BATCH, shuffle=True, num_workers=1, drop_last=True)
    val = DataLoader(Photos(sides["val"], False), BATCH, num_workers=1)
    module = Classifier(create_model(len(names), arguments.weights), len(train) * arguments.epochs)
    say("ready")
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, train, val)
    trainer.save_checkpoint("model.ckpt")
    say("done")


if __name__ == "__main__":
    main()
