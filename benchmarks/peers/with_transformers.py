"""The Trainer of Hugging Face's transformers, for which a model returns its own loss."""

from tempfile import TemporaryDirectory

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from benchmarks.peers.works import Work

__all__ = ["train"]


class Classifier(nn.Module):
    """The work's network, with named inputs and its loss among the outputs."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.model, self.loss = work.build(), work.loss

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(inputs)
        return {"loss": self.loss(logits, labels), "logits": logits}


class Examples(Dataset[dict[str, Tensor]]):
    """The tensors in memory under the names of the model's arguments."""

    def __init__(self, work: Work) -> None:
        self.inputs, self.targets = work.inputs, work.targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"inputs": self.inputs[index], "labels": self.targets[index]}


def train(work: Work) -> None:
    """Train at a constant rate; nothing is logged, saved or evaluated."""
    with TemporaryDirectory(prefix="goodfit-peers-") as folder:
        settings = TrainingArguments(
            output_dir=folder,
            num_train_epochs=work.epochs,
            per_device_train_batch_size=work.batch_size,
            learning_rate=work.lr,
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0,
            use_cpu=work.device == "cpu",
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Trainer(model=Classifier(work), args=settings, train_dataset=Examples(work)).train()
