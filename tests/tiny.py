"""The smallest networks on the digits: one for all tests that start commands, who then compile it once."""

DIGITS = (
    "--config=configs/digits.py", "--config.model.channels=(4, 4, 8)", "--config.model.z_dim=4",
    "--config.batch_size=8", "--config.checkpoint.calibration_batches=2",
)  # fmt: skip
