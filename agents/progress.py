"""The record of a training run: progress.csv, and beside it a line on the terminal and wandb.

progress.csv is the record; wandb is a mirror of it, imported only when it is asked for (an offline wandb run
cannot be resumed, so it could not be the record).
"""

import os
import sys
import time
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, get_args

from hardware_profiles.errors import InputError
from hardware_profiles.files import replacing


class ProgressRow(NamedTuple):
    """One rollout and the update that followed; a line of progress.csv.

    Attributes:
        timesteps: decisions so far.
        wall_s: seconds of training so far, over all its resumptions.
        steps_per_s: decisions a second in this rollout and its update.
        reward_per_decision: mean reward of a decision in the rollout, as the environment gave it.
        episode_cost: mean of minus the total reward, over the last 100 whole episodes; nan before the first.
        episodes: whole episodes behind `episode_cost`.
        explained_variance: of the returns by the values, before the update.
        entropy: mean entropy of the policy in nats.
        approx_kl: from the policy before the update to the one after, last epoch.
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
    """progress.csv, appended to row by row and flushed, so that a killed run leaves what it did.

    Args:
        path: the file.
        resume_at: decisions of the checkpoint the run goes on from; later rows are dropped, as they will be
            done again. 0 starts a new file.
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
    """Shows a run's progress on a terminal in one line that is rewritten; elsewhere, a line now and then.

    Args:
        total_timesteps: decisions the run will make.
        stream: where to; None is standard error.
        every_s: least seconds between lines when the stream is no terminal.
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
    """Mirrors rows to wandb; does nothing, and does not import it, when the mode is "disabled".

    Args:
        mode: one of WANDB_MODES.
        directory: where offline runs are kept.
        config: the run's arguments.

    Raises:
        InputError: an unknown mode, or wandb refused to start (online with no key, say).
    """

    def __init__(self, mode: WandbMode, directory: Path, config: dict[str, Any]) -> None:
        if mode not in WANDB_MODES:
            raise InputError(f"wandb mode {mode!r}: choose one of {', '.join(WANDB_MODES)}")
        self._run = None
        if mode == "disabled":
            return
        import wandb  # takes a second or two, and most runs do without

        # wandb takes our package `agents` for a library of LLM agents and would advertise tracing for it.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        settings = wandb.Settings(console="off", silent=True)
        try:
            self._run = wandb.init(
                mode=mode, project="prefill-placement", dir=directory, config=config, settings=settings
            )
        except wandb.errors.Error as error:
            raise InputError(f"wandb mode {mode!r}: {str(error).splitlines()[0]}") from error

    def write(self, row: ProgressRow) -> None:
        """Mirror a row."""
        if self._run is not None:
            self._run.log(row._asdict(), step=row.timesteps)

    def close(self, exit_code: int = 0) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)
