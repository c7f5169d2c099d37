"""Files of torch.save as data: equal to what PyTorch saved, and nothing in them can run, reach out or blow up."""

import copy
import pickle
import re
import zipfile

import numpy as np
import pytest

from introvae_jax.errors import UserError
from introvae_jax.torch_weights import torch_file, unpickler

BOTH = pytest.mark.parametrize("name", ["tensors", "tensors_legacy"])


def const(value):
    """The opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def call(module, name, *arguments):
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def tensor(sizes=(2,), strides=(1,), offset=0, count=4, key="a", kind=b"ctorch\nFloatStorage\n"):
    storage = b"(" + const("storage") + kind + const(key) + const("cpu") + const(count) + b"tQ"
    return call("torch._utils", "_rebuild_tensor_v2", storage, const(offset), const(sizes), const(strides),
                const(False), const(None))  # fmt: skip


def whole(opcodes, protocol=2):
    return bytes([0x80, protocol]) + opcodes + b"."


@BOTH
def test_types_strides_offsets_and_containers(saved, name):
    content = torch_file.read(saved / f"{name}.pth")
    for dtype, array in content["dtypes"].items():
        assert array.dtype.name == dtype
        fraction = "float" in dtype
        expected = [False, True, True, True] if dtype == "bool" else [0, 1, 2.5 if fraction else 2, 100]
        np.testing.assert_array_equal(array.astype(np.float64), np.asarray(expected, np.float64))
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(content["transposed"], grid.T)
    np.testing.assert_array_equal(content["part"], [7, 8, 9, 10])
    np.testing.assert_array_equal(content["columns"], grid[:, 1::2])
    np.testing.assert_array_equal(content["parameter"], grid.reshape(2, 12))
    assert np.shares_memory(content["transposed"], content["columns"])
    assert content["scalar"].shape == () and content["scalar"] == 3
    assert content["empty"].shape == (0, 3)
    assert (content["size"], content["device"]) == ((2, 12), "cpu")
    assert content["others"] == [1, -2.5, "text", None, True, (1, 2), {3}, 2**70]


def test_whole_networks_are_recorded(saved):
    for name in ("introvae_module", "introvae_module_legacy"):
        network = torch_file.read(saved / f"{name}.pth")
        assert (type(network), network.kind) == (unpickler.Object, "networks.IntroVAE")
        main = network.state["_modules"]["encoder"].state["_modules"]["main"]
        assert main.kind == "torch.nn.modules.container.Sequential"
        assert main.state["_modules"]["0"].state["_parameters"]["weight"].shape == (4, 3, 5, 5)


def test_a_file_made_by_hand_reads(write):
    """So that what is refused below is refused for its content."""
    np.testing.assert_array_equal(torch_file.read(write(whole(tensor()), a=[5, 6, 7, 8])), [5, 6])


def test_what_older_pythons_and_torches_wrote(write):
    """Lists of pairs (Python 2), the function backend of torch 0.4, a set by its old name."""
    odd = (
        call("collections", "OrderedDict", const([["b", 1], ["a", 2]])),
        call("torch.nn.backends.thnn", "_get_thnn_function_backend"),
        call("__builtin__", "set", const([3])),
    )
    pairs, backend, numbers = torch_file.read(write(whole(b"(" + b"".join(odd) + b"t")))
    assert (list(pairs.items()), backend.state, numbers) == ([("b", 1), ("a", 2)], {}, {3})


def parameter(value):
    """As torch 0.4.1 pickles one: the class is called with the tensor, which keeps its hooks, and requires_grad."""
    hooks = call("collections", "OrderedDict")
    old = value.replace(const(False) + const(None), const(True) + hooks)
    assert old != value
    return b"ctorch.nn.parameter\nParameter\n" + old + const(True) + b"\x86R"


def test_parameters_of_torch_0_4_1(write):
    state = b"}(" + const("weight") + parameter(tensor()) + const("bias") + parameter(tensor(offset=2)) + b"u"
    found = torch_file.read(write(whole(state), a=[5, 6, 7, 8]))
    np.testing.assert_array_equal(found["weight"], [5, 6])
    np.testing.assert_array_equal(found["bias"], [7, 8])


@pytest.mark.parametrize(("view", "told"), [((1, 3), None), ((2, 3), "up to element 5 of a storage of 4"),
                                            ((-1, 2), "with impossible bounds")])  # fmt: skip
def test_views_of_storages(view, told, write):
    viewed = const("a") + const("cpu") + const(4)
    path = write(whole(tensor().replace(viewed, viewed + const(("view", *view)))), a=[5, 6, 7, 8])
    if told is None:
        np.testing.assert_array_equal(torch_file.read(path), [6, 7])
        return
    with pytest.raises(UserError, match=told):
        torch_file.read(path)


MARKED = "open('MARKER', 'w').close()"
ATTACKS = {
    "posix.system": call("posix", "system", const("touch MARKER")),
    "os.system": call("os", "system", const("touch MARKER")),
    "builtins.eval": call("builtins", "eval", const(MARKED)),
    "builtins.exec": call("builtins", "exec", const(MARKED)),
    "builtins.getattr": call("builtins", "getattr", const("x"), const("upper")),
    "__builtin__.eval": call("__builtin__", "eval", const(MARKED)),
    "commands.getoutput": call("commands", "getoutput", const("touch MARKER")),
    "subprocess.Popen": call("subprocess", "Popen", const(["touch", "MARKER"])),
    "functools.partial": call("functools", "partial", b"cbuiltins\neval\n", const(MARKED)),
    "numpy.core.multiarray._reconstruct": call("numpy.core.multiarray", "_reconstruct", const(0)),
    "numpy.load": call("numpy", "load", const("x")),
    "torch.hub.load": call("torch.hub", "load", const("x"), const("y")),
    "torch.storage._load_from_bytes": call("torch.storage", "_load_from_bytes", const(b"x")),
    "torch.serialization.load": call("torch.serialization", "load", const("x")),
    "introvae_jax.errors.fail": call("introvae_jax.errors", "fail", const("x")),
    "a dotted name": (const("torch.nn.modules.x") + const("os.system") + b"\x93", "torch.nn.modules.x.os.system"),
    "a dotted name of a network": (const("networks") + const("os.system") + b"\x93", "networks.os.system"),
    "terminal codes": (const("posix") + const("\x1b[2Jsystem") + b"\x93", r"posix\.\?\[2Jsystem"),
    "a call of a network's class": (call("networks", "IntroVAE", const(1)), "a call of networks.IntroVAE"),
    "a call of a module's class": (call("torch.nn.modules.linear", "Linear", const(1)), "a call of torch.nn.mod"),
    "a call of an object": (b"cnetworks\nA\n)\x81)R", "a call of Object"),
    "a call of a number": (const(1) + b")R", "a call of int"),
    "a call of a storage type": (b"ctorch\nFloatStorage\n)R", "a call of torch.FloatStorage"),
    "an object with arguments": (b"cnetworks\nA\n" + const((1,)) + b"\x81", "an object of networks.A made with 1"),
    "an object of a function": (b"ccollections\nOrderedDict\n)\x81", "an object of collections.OrderedDict"),
    "an object of Parameter": (b"ctorch.nn.parameter\nParameter\n)\x81", "an object of torch.nn.parameter.Parameter"),
    "a state of Parameter": (b"ctorch.nn.parameter\nParameter\n" + const({"x": 1}) + b"b", "a state of type dict"),
    "a parameter of a call": (
        b"ctorch.nn.parameter\nParameter\n" + call("builtins", "eval", const(MARKED)) + const(True) + b"\x86R",
        "builtins.eval"),
    "another name beside Parameter": (call("torch.nn.parameter", "Buffer", const(1)), "torch.nn.parameter.Buffer"),
    "a state of a function": (b"ccollections\nOrderedDict\n" + const({"__code__": 1}) + b"b", "a state of type dict"),
    "a state of a class": (b"cnetworks\nA\n" + const({"x": 1}) + b"b", "a state of type dict for a Global"),
    "INST": (b"(" + const("touch MARKER") + b"iposix\nsystem\n", "the opcode INST"),
    "OBJ": (b"(cnetworks\nA\n" + const(1) + b"o", "the opcode OBJ"),
    "NEWOBJ_EX": (b"cnetworks\nA\n)}\x92", "the opcode NEWOBJ_EX"),
    "EXT1": (b"\x82\x01", "the opcode EXT1"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "the opcode EXT4"),
    "PERSID": (b"Pstorage\n", "the opcode PERSID"),
    "a storage of another type": (tensor(kind=b"cnetworks\nFloatStorage\n"), "a storage of type networks.FloatStorage"),
    "a deep tuple as a key": (b"}" + b")" + b"\x85" * 100_000 + b"Ns", "a tuple as the key"),
    "a deep tuple in a set": (b"\x8f(" + b")" + b"\x85" * 100_000 + b"\x90", "a tuple as the key"),
    "copies of a list": (
        const([["k", 1]] * 2000) + b"q\x63" + b"".join(
            b"ccollections\nOrderedDict\nh\x63\x85R" for _ in range(600)), "more than 1048576 items"),
    "endless names": (const("a" * (2**22 + 10)), "more than 4 MiB"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_weights_do_not_need_is_refused_by_name_and_not_run(attack, write, tmp_path, monkeypatch):
    opcodes, told = ATTACKS[attack] if isinstance(ATTACKS[attack], tuple) else (ATTACKS[attack], attack)
    monkeypatch.chdir(tmp_path)
    path = write(whole(opcodes, 4))
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match=rf"{path.name}: refused: the pickle asks for {told}") as caught:
        torch_file.read(path)
    assert str(caught.value).isprintable()
    assert set(tmp_path.iterdir()) == before


def test_the_attacks_are_real(tmp_path, monkeypatch):
    """Python's own unpickler runs them."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(whole(ATTACKS["builtins.eval"]))
    assert (tmp_path / "MARKER").exists()


def test_a_bare_pickle_is_refused_too(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(whole(ATTACKS["posix.system"]))
    with pytest.raises(UserError, match=r"refused: the pickle asks for posix\.system"):
        torch_file.read(path)


def test_special_attributes_are_only_recorded(write):
    state = {"__setstate__": 1, "__class__": 2, "state": 3, "kind": 4}
    found = torch_file.read(write(whole(b"cnetworks\nA\n)\x81" + const(state) + b"b")))
    assert (type(found), found.kind, found.state) == (unpickler.Object, "networks.A", state)


DAMAGED_TENSORS = {
    "stride": (tensor((2, 2), (3, 1)), "5th in a storage of 4"),
    "offset": (tensor((2,), (1,), offset=3), "5th in a storage of 4"),
    "far offset": (tensor((1,), (1,), offset=2**62), "in a storage of 4"),
    "far stride": (tensor((2,), (2**62,)), "in a storage of 4"),
    "negative offset": (tensor((1,), (1,), offset=-1), "of an impossible shape"),
    "negative stride": (tensor((2,), (-1,), offset=3), "of an impossible shape"),
    "negative size": (tensor((-1,), (1,)), "of an impossible shape"),
    "size that is no number": (tensor((2.0,), (1,)), "of an impossible shape"),
    "dimensions": (tensor((2, 2), (1,)), "of an impossible shape"),
    "repeated without end": (tensor((2**40,), (0,)), "a tensor of 1099511627776 elements"),
    "repeated": (tensor((5,), (0,)), "a tensor of 5 elements"),
    "empty and huge": (tensor((0, 2**62, 2**62), (1, 1, 1)), "damaged"),
    "count": (tensor(count=3), r"storage a has \d+ .*where \d+ are needed"),
    "huge count": (tensor(count=2**60), "storage"),
    "two counts": (b"(" + tensor() + tensor(count=2) + b"t", "two types or sizes"),
    "two types": (b"(" + tensor() + tensor(kind=b"ctorch\nIntStorage\n") + b"t", "two types or sizes"),
    "a missing storage": (b"(" + tensor() + tensor(key="b") + b"t", "damaged"),
    "a dictionary of a tensor": (
        call("collections", "OrderedDict", tensor((2, 2), (2, 1))),
        "a container made of ndarray",
    ),
    "a set of a tensor": (call("builtins", "set", tensor()), "made of ndarray"),
    "no storage": (call("torch._utils", "_rebuild_tensor", *map(const, (1, 0, (1,), (1,)))), "without storage"),
    "a parameter without tensor": (call("torch.nn.parameter", "Parameter", const(1), const(True)), "without tensor"),
    "too few arguments": (call("torch._utils", "_rebuild_tensor_v2", const(1)), "damaged"),
    "empty stack": (b"0" * 3, "damaged"),
    "unknown memo": (b"h\x07", "damaged"),
    "no mark": (b"t", "damaged"),
    "no end": (b"N" * 10 + b"\x8c", "damaged"),
}


@pytest.mark.parametrize("case", DAMAGED_TENSORS)
def test_tensors_that_cannot_be(case, write):
    opcodes, told = DAMAGED_TENSORS[case]
    path = write(whole(opcodes), a=[1, 2, 3, 4])
    with pytest.raises(UserError, match=rf"{path.name}: damaged or cut short \(.*\); get the file again") as caught:
        torch_file.read(path)
    assert re.search(told, str(caught.value))
    assert str(caught.value).isprintable()


def test_many_tensors_of_one_storage(write):
    size = 10_000
    views = [tensor((size,), (1,), count=size)] * 6
    assert len(torch_file.read(write(whole(b"(" + b"".join(views[:3]) + b"t"), a=np.zeros(size)))) == 3
    with pytest.raises(UserError, match="4 times the file's size"):
        torch_file.read(write(whole(b"(" + b"".join(views) + b"t"), a=np.zeros(size)))


def test_zip_bombs(tmp_path):
    packed, twice = tmp_path / "packed.pth", tmp_path / "twice.pth"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", whole(tensor(count=2**24)))
        archive.writestr("archive/data/a", bytes(2**26))
    with pytest.raises(UserError, match="a compressed entry"):
        torch_file.read(packed)
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("archive/data.pkl", whole(tensor(count=2**10)))
        archive.writestr("archive/data/a", bytes(2**12))
        archive.filelist += [copy.copy(archive.filelist[-1]) for _ in range(100)]
    with pytest.raises(UserError, match="entries larger than the file"):
        torch_file.read(twice)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        (["archive/data/0"], "0 entries named data.pkl"),
        (["a/data.pkl", "b/data.pkl"], "2 entries named data.pkl"),
        (["a/data.pkl", "a/constants.pkl"], "TorchScript"),
        (["a/data.pkl", "a/byteorder"], "big endian"),
    ],
)
def test_other_zips(entries, told, tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries:
            archive.writestr(entry, "big")
    with pytest.raises(UserError, match=f"x.pth: .*{told}"):
        torch_file.read(path)


@BOTH
def test_a_file_cut_short_anywhere(saved, name, tmp_path):
    data, path = (saved / f"{name}.pth").read_bytes(), tmp_path / "cut.pth"
    for end in {*range(0, len(data), 61), len(data) - 1}:
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match=r"cut.pth: (damaged or cut short|not a file of torch.save)"):
            torch_file.read(path)


@pytest.mark.parametrize("name", ["tensors", "tensors_legacy", "introvae_module_legacy"])
def test_flipped_bytes_never_end_in_anything_but_an_answer(saved, name, tmp_path):
    data, path = (saved / f"{name}.pth").read_bytes(), tmp_path / "flipped.pth"
    key, refused = np.random.default_rng(0), 0
    for _ in range(100):
        flipped = bytearray(data)
        for place in key.integers(0, min(len(data), 3000), 3):
            flipped[place] = key.integers(0, 256)
        path.write_bytes(flipped)
        try:
            torch_file.read(path)
        except UserError as error:
            assert str(error).isprintable()
            refused += 1
    assert refused > 50


def test_counts_in_the_older_container(saved, tmp_path):
    data, path = (saved / "tensors_legacy.pth").read_bytes(), tmp_path / "x.pth"
    last = data.rindex(bytes([24, 0, 0, 0, 0, 0, 0, 0]))
    path.write_bytes(data[:last] + bytes([23]) + data[last + 1 :])
    with pytest.raises(UserError, match="has 23 elements where 24 are needed"):
        torch_file.read(path)
    path.write_bytes(data + b"more")
    with pytest.raises(UserError, match="4 bytes behind the last storage"):
        torch_file.read(path)


def test_what_is_no_such_file(tmp_path):
    for name, content in {"text.pth": b"import os\n", "empty.pth": b"", "png.pth": b"\x89PNG\r\n"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not a file of torch.save"):
            torch_file.read(tmp_path / name)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"pickle.pth: damaged"):
        torch_file.read(tmp_path / "pickle.pth")
    with pytest.raises(UserError, match=r"nowhere.pth: there is no such file"):
        torch_file.read(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="not a file"):
        torch_file.read(tmp_path)
