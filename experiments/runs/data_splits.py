"""Which requests are used for what, so that nothing is evaluated on what it was trained or tuned on.

| used for | seeds of a family | part of a trace's span |
|---|---|---|
| training | 2^31 and above | first 60 % |
| tuning of rules | 800,001 to 800,008 | next 15 % |
| evaluation by `train` | from 500,000 | last 25 % |
| `compare`, `reproduce`, `watch` | from 0 | all |
| knee of `static` | 900,001 to 900,010 | |
| `capacity` | from 950,000 | |
| calibration of alarms by `watch` | from 970,000 | |
| validation and test in docs/protocol.md | from 1,000,000 and from 1,100,000 | next 15 %, last 25 % |

The defaults of PPO and of its cost were chosen by trials on seeds below 1,000 and around 600,000 and 700,000.
"""

TRAINING_SEED = 2**31
"""As `agents.episodes.FIRST_TRAINING_SEED`; importing that here would make results of rules depend on the agents."""
EVALUATION_SEED = 500_000
TUNING_SEEDS = tuple(range(800_001, 800_009))
KNEE_SEEDS = tuple(range(900_001, 900_011))
CAPACITY_SEED = 950_000
ALARM_SEED = 970_000
TRAINING_PART, TUNING_PART, EVALUATION_PART = (0.0, 0.6), (0.6, 0.75), (0.75, 1.0)
