"""A few epochs of any Trainer on a task's labelled rows."""

from tests.distillation.tasks import TASK_CASES


def curve(trainer_class, arguments_class, output_dir, task="single_label_classification", **more):
    """Losses and final weights of three epochs in which every position has its label, dropout on."""
    case = TASK_CASES[task]
    unlabelled = {"labels": -100, "start_positions": -100}
    rows = case.rows().filter(lambda row: all(row.get(name) != value for name, value in unlabelled.items()))
    if task == "multi_label_classification":
        rows = rows.filter(lambda row: row["labels"][0] >= 0)
    args = arguments_class(
        output_dir=str(output_dir),
        per_device_train_batch_size=2,
        num_train_epochs=3,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        seed=7,
        **more,
    )
    model = case.teacher()
    trainer = trainer_class(model=model, args=args, train_dataset=rows, data_collator=case.collator())
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], model.state_dict()
