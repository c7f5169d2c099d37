"""What a file from a stranger can do, by kind of file, and the test of each claim: part of docs/broken_input.md."""

HOSTILE, DAMAGE, BROKEN = (f"tests/data/test_{name}.py" for name in ("hostile", "damaged_files", "broken"))
TORCH, OTHERS = "tests/torch_weights/test_torch_file.py", "tests/test_strangers.py"
ALL_KINDS = f"{BROKEN}::test_the_bombs_take_no_time_and_no_fifo_is_waited_for"

HEAD = """
# What a file from a stranger can do

Files of these kinds run no code, import no module, read no other file, and neither block nor exhaust memory. Each row
names what the format can do in other programs, what happens here, and the test for it.

| file | what it could do | what happens | test |
|---|---|---|---|
"""

ROWS = [
    (
        "TFDS directory",
        "features.json names a Python class, which TFDS imports",
        "only the classes of tfds.features are allowed; any other refuses the set before TFDS opens it",
        f"{HOSTILE}::test_a_tfds_set_imports_nothing",
    ),
    (
        "TFDS directory",
        "dataset_info.json places its shards elsewhere",
        "refused: shards are files of the directory",
        f"{HOSTILE}::test_a_tfds_set_reads_no_other_set",
    ),
    ("TFDS directory", "a FIFO in place of a file", "refused by name", f"{HOSTILE}::test_a_tfds_set_waits_for_no_fifo"),
    (
        "HDF5",
        "external storage, external links and virtual data sets read any file of the machine",
        "refused by name before the data set is opened, links within the file too",
        f"{HOSTILE}::test_hdf5_reads_no_other_file_and_waits_for_no_fifo",
    ),
    (
        "HDF5",
        "huge declared sizes and chunks",
        "refused: images of 67 million pixels, 16.8 million images, chunks of "
        "256 MiB, and 1032 values for each byte of the file are the most",
        f"{HOSTILE}::test_hdf5_of_a_huge_declared_size_is_refused_at_once",
    ),
    (
        "HDF5",
        "a filter whose library HDF5 loads",
        "refused; only HDF5's own filters and lzf are read",
        f"{HOSTILE}::test_hdf5_packed_by_a_filter_that_would_be_loaded_is_refused",
    ),
    (
        "zip",
        "names that lead out, links, bombs",
        "left out by name; nothing is unpacked to disk",
        f"{BROKEN}::test_every_case_gets_what_it_should",
    ),
    (
        "zip",
        "damaged sizes, places and names",
        "every command reads an image whole, by its checksum, or names it",
        f"{DAMAGE}::test_a_damaged_zip_gives_whole_images_and_names_the_others_or_is_refused",
    ),
    (
        "tar",
        "names that lead out, links, devices, members that lead back",
        "left out by name; the list ends there",
        f"{BROKEN}::test_every_case_gets_what_it_should",
    ),
    (
        "TFRecords",
        "damaged lengths, other protocol buffers",
        "left out by name; records name no file",
        f"{BROKEN}::test_every_case_gets_what_it_should",
    ),
    (
        "LMDB",
        "pages that point outside the file, which end the process",
        "listed in a process of its own, then refused",
        f"{BROKEN}::test_a_whole_source_is_refused_in_one_line_or_kept_with_its_loss_named",
    ),
    (
        "image",
        "67 million pixels and more, text and profile bombs, long tags and tiles of TIFF",
        "left out by name",
        ALL_KINDS,
    ),
    (
        "image",
        "a JPEG of thousands of scans",
        "left out: 500 scans, and 2.1 billion pixels in all scans, are the most",
        f"{DAMAGE}::test_a_jpeg_of_many_scans_is_refused_at_once_and_a_photo_with_a_film_behind_it_is_not",
    ),
    (
        "file name, key",
        "control characters for the terminal",
        "escaped in every message",
        "tests/test_errors.py::test_what_files_are_called_does_not_reach_the_terminal_raw",
    ),
    (
        "weights (.pth)",
        "pickles run code",
        "names become placeholders; only functions that make tensors and containers run",
        f"{TORCH}::test_what_weights_do_not_need_is_refused_by_name_and_not_run",
    ),
    ("weights (.pth)", "bombs, counts and sizes", "refused", f"{TORCH}::test_zip_bombs"),
    (
        "checkpoint",
        "names of handlers, which could be imported",
        "Orbax looks them up in its own registry alone",
        f"{OTHERS}::test_a_checkpoint_imports_nothing",
    ),
    (
        "checkpoint",
        "a FIFO or a device in place of a file",
        "refused by name",
        f"{OTHERS}::test_a_checkpoint_waits_for_no_fifo_and_reads_no_device",
    ),
    (
        "checkpoint",
        "an array's name that is a path elsewhere",
        "refused: names are keys of the checkpoint's database",
        f"{OTHERS}::test_a_checkpoint_reads_no_array_of_another_place",
    ),
]

FOOT = """
Two limits remain. **Symbolic links** in a folder of images are followed, because data sets are often assembled from
them. A folder that a stranger packed can hold a link to one of your images, which is then read like the others: unpack
with a program that refuses such links (`tar`, `unzip` and Python's `tarfile` with `filter="data"` do). An
**ArrayRecord** file, the shard of a TFDS data set, is unpacked one record at a time without a bound on its size.
libtiff writes a line of its own to stderr about a damaged, compressed TIFF.
"""


def table() -> str:
    return HEAD + "".join(f"| {' | '.join(row[:3])} | `{row[3]}` |\n" for row in ROWS) + FOOT
