"""The progress of a training run: progress.csv, a line on the terminal, and optionally wandb.

progress.csv is the authoritative record. wandb gets a copy, and is imported only if it is used; an offline wandb run
cannot be resumed, so it cannot be the record.
"""

import os
import sys
import time
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, get_args

from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing


class ProgressRow(NamedTuple):
    """One rollout and the update after it; one line of progress.csv.

    Attributes:
        timesteps: decisions so far.
        wall_s: wall-clock seconds of training so far, including those before a resumption.
        steps_per_s: decisions per second in this rollout and its update.
        reward_per_decision: mean unscaled reward per decision in the rollout.
        episode_cost: mean negative total reward of the last 100 complete episodes; nan before the first.
        episodes: number of complete episodes in `episode_cost`.
        explained_variance: share of the returns' variance explained by the values, before the update.
        entropy: mean entropy of the policy in nats.
        approx_kl: KL divergence between the policies before and after the update, in the last epoch.
        clip_fraction: share of probability ratios outside the clip range.
        value_loss: mean squared error of the scaled values.
    """

    timesteps: int
    wall_s: float
    steps_per_s: float
    reward_per_decision: float
    episode_cost: float
    episodes: int
    explained_variance: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    value_loss: float


class ProgressFile:
    """progress.csv; every row is flushed, so that an interrupted run leaves a complete record.

    Args:
        path: the file.
        resume_at: decisions of the checkpoint from which the run resumes; later rows are dropped, because they will be
            repeated. 0: start a new file.
    """

    def __init__(self, path: Path, resume_at: int = 0) -> None:
        kept, self.wall_s = _rows_until(path, resume_at) if resume_at else ([], 0.0)
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in [",".join(ProgressRow._fields), *kept]))
        self._file = path.open("a")

    def write(self, row: ProgressRow) -> None:
        """Append a row."""
        self._file.write(",".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _rows_until(path: Path, timesteps: int) -> tuple[list[str], float]:
    """The lines of a progress file up to `timesteps`, and the seconds they took."""
    try:
        lines = path.read_text().splitlines()[1:]
        kept = [line for line in lines if int(line.split(",")[0]) <= timesteps]
        return kept, float(kept[-1].split(",")[1]) if kept else 0.0
    except FileNotFoundError:
        return [], 0.0
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: not a progress file of a training run ({error})") from error


class ProgressLine:
    """Shows progress in one line that is rewritten on a terminal, or in occasional lines elsewhere.

    Args:
        total_timesteps: total number of decisions of the run.
        stream: output stream; None: standard error.
        every_s: shortest time between lines if the stream is not a terminal, seconds.
    """

    def __init__(self, total_timesteps: int, stream: IO[str] | None = None, every_s: float = 15.0) -> None:
        self.total = total_timesteps
        self.stream = stream or sys.stderr
        self.every_s = every_s
        self._terminal = self.stream.isatty()
        self._shown_s = float("-inf")

    def __call__(self, row: ProgressRow) -> None:
        """Show a row."""
        last = row.timesteps >= self.total
        if not (self._terminal or last or time.monotonic() - self._shown_s >= self.every_s):
            return
        self._shown_s = time.monotonic()
        left_s = max(0.0, (self.total - row.timesteps) / row.steps_per_s)
        text = (
            f"train {row.timesteps:,}/{self.total:,}  {row.steps_per_s:,.0f} steps/s  cost/decision "
            f"{-row.reward_per_decision:.4g}  explained {row.explained_variance:.2f}  "
            f"entropy {row.entropy:.2f}  kl {row.approx_kl:.3f}  {left_s:,.0f} s left"
        )
        self.stream.write(f"\r\x1b[K{text}" + ("\n" if last else "") if self._terminal else f"{text}\n")
        self.stream.flush()


WandbMode = Literal["offline", "online", "disabled"]
WANDB_MODES: tuple[str, ...] = get_args(WandbMode)


class WandbMirror:
    """Copies rows to wandb; in mode "disabled" it does nothing and does not import wandb.

    Args:
        mode: one of WANDB_MODES.
        directory: folder of offline runs.
        config: the run's arguments.

    Raises:
        InputError: the mode is unknown, or wandb does not start (for example, online without a key).
    """

    def __init__(self, mode: WandbMode, directory: Path, config: dict[str, Any]) -> None:
        if mode not in WANDB_MODES:
            raise InputError(f"wandb mode {mode!r}: choose one of {', '.join(WANDB_MODES)}")
        self._run = None
        if mode == "disabled":
            return
        import wandb  # takes a second or two, and most runs do not need it

        # wandb mistakes the package `agents` for a library of LLM agents and would advertise tracing for it.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        settings = wandb.Settings(console="off", silent=True)
        try:
            self._run = wandb.init(
                mode=mode, project="prefill-placement", dir=directory, config=config, settings=settings
            )
        except wandb.errors.Error as error:
            raise InputError(f"wandb mode {mode!r}: {str(error).splitlines()[0]}") from error

    def write(self, row: ProgressRow) -> None:
        """Copy a row."""
        if self._run is not None:
            self._run.log(row._asdict(), step=row.timesteps)

    def close(self, exit_code: int = 0) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)
