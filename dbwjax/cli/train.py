"""`python -m dbwjax.train`: what is typed, and what is done with it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence

from dbwjax.cli.command import guarded, say


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, as `command` lists them."""
    from dbwjax.runtime import processes

    try:
        code = guarded(lambda: _main(argv))
        return processes.leave(code) if code == 2 else code  # what ends all processes alike can be waited for
    except BaseException as error:
        if processes.is_lost(error):
            return processes.leave(say(processes.lost_line(), processes.LOST_EXIT))
        if processes.count() > 1:  # the others must not wait for one that fails
            traceback.print_exc()
            say(f"{type(error).__name__}: {error}", 1)
            return processes.leave(1)
        raise


def _main(argv: Sequence[str] | None) -> int:
    from dbwjax.cli import arguments
    from dbwjax.experiments import config as configs
    from dbwjax.runtime import environment, interrupts, processes, streams

    config, options, action = arguments.parse(argv)
    if action == "list":
        environment.start_jax()
        from dbwjax.cli.listing import listing

        streams.show(listing())
        return 0
    configs.validate(config, options)
    processes.check(options)
    if action == "print-config":
        streams.show(json.dumps(configs.to_json(config), indent=2))
        return 0
    environment.start_jax()
    processes.connect(options)
    interrupts.arm()  # JAX's processes take SIGTERM for themselves
    from dbwjax.experiments import run

    if options.distributed:
        from dbwjax.runtime import devices

        devices.here()
    return run.run_experiment(config, options)
