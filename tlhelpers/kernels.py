"""Kernels that begin as copies of the process that starts them, with all that it has loaded."""

import asyncio
import contextlib
import multiprocessing
import os
import sys

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

LAUNCHER = "ipykernel_launcher"  # what a command that starts an ordinary kernel runs
INLINE = "module://matplotlib_inline.backend_inline"


class CopyingKernelManager(AsyncKernelManager):
    """Starts a kernel as a copy of this process, which may have loaded TensorFlow but not computed with it.

    Args:
        **options: as for `jupyter_client.AsyncKernelManager`.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.provisioner = _CopyProvisioner(kernel_spec=self.kernel_spec, parent=self)


class _CopyProvisioner(LocalProvisioner):
    """What Jupyter asks to start, watch and end a kernel."""

    async def launch_kernel(self, cmd, *, env, **_):
        self.process = _Copy(_be_kernel, cmd[cmd.index(LAUNCHER) + 1 :], env)
        self.pid = self.process.pid
        return self.connection_info


class _Copy:
    """A copied process, which answers what Jupyter asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None  # those of the process that was copied

    def __init__(self, function, *arguments):
        self._process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self):
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)


def _be_kernel(arguments, environment):
    import matplotlib
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    multiprocessing.set_start_method(None, force=True)  # what the kernel starts begins as from an ordinary one
    asyncio.set_event_loop(asyncio.new_event_loop())  # the other one is that of the process that was copied
    matplotlib.rcParams["backend"] = INLINE  # which an ordinary kernel tells it by the environment, before it is loaded
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
