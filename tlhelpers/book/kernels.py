"""Kernels of this very Python, some of which begin as copies of the process that starts them."""

import asyncio
import contextlib
import multiprocessing
import os
import sys

from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import LocalProvisioner

LAUNCHER = "ipykernel_launcher"  # what a command that starts an ordinary kernel runs
INLINE = "module://matplotlib_inline.backend_inline"
BACKEND = "MPLBACKEND"  # the environment variable by which a kernel tells matplotlib where figures go


class KernelManager(AsyncKernelManager):
    """Starts kernels of the Python that runs this, whatever else on this machine is called `python3`."""

    python = sys.executable

    @property
    def kernel_spec(self):
        """The command of such a kernel."""
        return KernelSpec(argv=make_ipkernel_cmd(executable=self.python), display_name="Python 3", language="python")


def manager_of(python):
    """The class of managers that start kernels of another Python, a Path; None means of this one."""
    return KernelManager if python is None else type("OtherKernelManager", (KernelManager,), {"python": str(python)})


@contextlib.contextmanager
def environment():
    """Lets kernels that start inside of the block put figures on the page, wherever else this process would."""
    before = os.environ.get(BACKEND)
    os.environ[BACKEND] = INLINE
    try:
        yield
    finally:
        if before is None:
            del os.environ[BACKEND]
        else:
            os.environ[BACKEND] = before


@contextlib.contextmanager
def copying_manager():
    """Copies this process, which may have loaded TensorFlow but not computed with it, for the next kernel.

    It is copied at once, with the few calls that are under way: a copy keeps them, and TensorFlow notes all calls
    under way with each operation of a graph, so that a graph takes the longer the more there are.

    Yields:
        class of managers, as nbclient takes it; the first kernel that one of them starts is the copy. A copy that
        nobody has asked for ends with the context.
    """
    copy = _Copy()
    try:
        yield type("CopyingKernelManager", (_Manager,), {"copy": copy})
    finally:
        copy.close()


class _Manager(KernelManager):
    """Has a copied process as its kernel."""

    def __init__(self, **options):
        super().__init__(**options)
        self.provisioner = _Provisioner(kernel_spec=self.kernel_spec, parent=self)


class _Provisioner(LocalProvisioner):
    """What Jupyter asks to start, watch and end a kernel."""

    async def launch_kernel(self, cmd, *, env, **_):
        self.process = self.parent.copy
        self.process.begin(cmd[cmd.index(LAUNCHER) + 1 :], env)
        self.pid = self.process.pid
        return self.connection_info


class _Copy:
    """A copied process that waits to become a kernel, and answers what Jupyter asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None  # those of the process that was copied

    def __init__(self):
        context = multiprocessing.get_context("fork")
        receiver, self._sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_become_kernel, args=(receiver, self._sender))
        self._process.start()
        receiver.close()
        self.pid = self._process.pid

    def begin(self, arguments, environment):
        self._sender.send((arguments, environment))

    def close(self):
        self._sender.close()

    def poll(self):
        return self._process.exitcode

    def wait(self):
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)


def _become_kernel(receiver, sender):
    sender.close()  # this copy of it would keep the pipe open
    try:
        arguments, environment = receiver.recv()
    except EOFError:  # nobody has asked for a kernel
        return
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
