"""What notebooks call: training, sample banks, evaluation."""
