"""Random pairs in fp64, and the comparison of a loss with a reference computed on them."""

import torch


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))


def assert_reference(loss, student, teacher, expected, single_atol=1e-5, **options):
    torch.testing.assert_close(loss(student, teacher, **options), expected, atol=1e-6, rtol=0)
    single = loss(student.float(), teacher.float(), **options)
    torch.testing.assert_close(single.double(), expected, atol=single_atol, rtol=1e-6)
