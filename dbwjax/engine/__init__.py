"""What happens: the clock applies a policy to time, the learner applies its plans to parameters.

The engine takes policies and never imports one.
"""
