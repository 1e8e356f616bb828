from app import errors


def _tree(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _tree(child))]


def test_codes_are_unique_and_drawn_in_the_docstring() -> None:
    tree = _tree(errors.ZooError)
    codes = [getattr(kind, "code") for kind in tree]  # noqa: B009 - mypy knows no `code` on Exception
    assert len(set(codes)) == len(codes)
    drawn = {line.strip(" │├└─").split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line}
    assert drawn | {"ZooError"} == {kind.__name__ for kind in tree}
