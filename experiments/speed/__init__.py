"""Speed of the simulator, the environment and PPO: measurements, and the baseline that they are compared with."""
