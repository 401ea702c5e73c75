"""Layers that hand on what they read, by hooks: what dropping them has to equal."""

from contextlib import ExitStack, contextmanager

from hf_shrink.architectures import find_layers


@contextmanager
def bypassed(model, dropped):
    """While it lasts, layers (by stack, indices) add nothing; what else they return, such as positions, stays."""

    def hand_on(layer, args, kwargs, output):
        read = args[0] if args else kwargs["hidden_states"]
        return (read, *output[1:]) if isinstance(output, tuple) else read

    with ExitStack() as stack:
        for name, indices in dropped.items():
            for index in indices:
                handle = find_layers(model)[name][index].register_forward_hook(hand_on, with_kwargs=True)
                stack.callback(handle.remove)
        yield
