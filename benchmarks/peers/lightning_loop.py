"""The same fine-tuning as `torch_loop.py`, compiled too, as a LightningModule run by Lightning's Trainer."""

from __future__ import annotations

import time

import lightning
import torch
from events import list_photos, read_arguments, read_split, save_predictions, say
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torch_loop import PREDICT_BATCH, Files, create_loaders, create_model, create_optimizer, freeze_batch_norm


class Classifier(lightning.LightningModule):
    """EfficientNet-B0, BatchNorm in eval mode, AdamW by a one-cycle policy."""

    def __init__(self, model: torch.nn.Module, steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, steps
        # In a tuple, so that the weights are not registered, and saved, twice. Validation stays eager, as a second
        # compilation costs more than it saves.
        self.compiled = (torch.compile(model, dynamic=False),)
        self.right: list[torch.Tensor] = []

    def on_train_epoch_start(self) -> None:
        freeze_batch_norm(self.model)
        self.started = time.perf_counter()

    def training_step(self, batch, index):
        images, targets = batch
        return cross_entropy(self.compiled[0](images.contiguous(memory_format=torch.channels_last)), targets)

    def on_validation_epoch_start(self) -> None:
        self.right = []

    def validation_step(self, batch, index) -> None:
        images, targets = batch
        logits = self.model(images.contiguous(memory_format=torch.channels_last))
        self.right.append((logits.argmax(1) == targets).float())

    def on_validation_epoch_end(self) -> None:
        took = time.perf_counter() - self.started
        accuracy = float(torch.cat(self.right).mean())
        say("epoch", stage="finetune", epoch=self.current_epoch + 1, epoch_s=took, val_accuracy=accuracy)

    def predict_step(self, batch, index):
        return self.model(batch.contiguous(memory_format=torch.channels_last)).softmax(1)

    def configure_optimizers(self):
        optimizer, schedule = create_optimizer(self.model, self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main() -> None:
    arguments = read_arguments(("train", "predict"))
    lightning.seed_everything(arguments.seed, verbose=False)
    sides, names = read_split(arguments.split, arguments.photos)
    model = create_model(len(names), arguments.weights)
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    if arguments.task == "predict":
        paths = list_photos(arguments.photos)
        loader = DataLoader(Files(paths), PREDICT_BATCH, num_workers=1 if len(paths) > 1 else 0)
        probs = trainer.predict(Classifier(model, 0), loader)
        save_predictions(paths, torch.cat(probs).numpy(), names)
        return
    train, val = create_loaders(sides)
    trainer.fit(Classifier(model, len(train) * arguments.epochs), train, val)
    trainer.save_checkpoint("model.ckpt")


if __name__ == "__main__":
    main()
