"""Steps of the recording, counted from 0, that come out differently, by the reason (docs/mount-server.md)."""

DIFFERENT: dict[str, set[int]] = {
    "HEAD is answered, a doubled slash is no redirect, what follows a JSON body is refused": {34, 41, 89},
    "keys of a body are case-sensitive": {72},
    "answers hold the mount that was just made or committed": {54, 196, 200, 253, 266, 351, 399},
    "a mount follows its branch, and is not behind its own commit": {56, 57, 58, 59, 202, 203, 207, 215},
    "a mount shows its commit from the start, a new branch its first one": {
        192, 193, 220, 224, 225, 230, 232, 233, 235, 240, 248, 252, 255, 257, 260, 263, 270, 284, 290, 294, 299, 418,
    },
    "all mounts of a request are made, or none": {108, 109},
    "another path under a name in use is refused": {53},
    "a commit names no branch since Pachyderm 2.11": {111, 113, 114, 122},
    "a commit is read-only, and no branch": {115, 117, 121, 123},
    "a path is told with a slash": {128},
    "paths that are not there, globs and .. are refused": {130, 131, 132, 133, 134, 135, 136, 137, 139, 141},
    "a mount with a path changes nothing outside it": {138, 140, 400, 431},
    "names that are no directory are refused": {
        150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 167, 168, 170, 172,
    },
    "one refused mount does not break others": {176, 177, 180, 243, 245, 247},
    "nothing new makes no commit": {197, 204, 218},
    "a commit holds what changed since the last one, nothing twice": {208, 223, 261, 423},
    "only a writable mount commits": {216, 323},
    "illegal branch names are refused at once": {237, 238},
    "branches come sorted": {267},
    "an output branch without a finished commit is empty, and not writable": {
        273, 274, 275, 276, 277, 278, 279, 280,
    },
    "an open commit of another client is left alone": {286, 288},
    "what cannot be committed is kept until it is discarded": {300, 303},
    "the mounted datum always has an empty, writable out": {
        309, 315, 318, 324, 326, 328, 336, 340, 344, 348, 352, 356, 360, 364, 368,
    },
    "a datum may have several files of an input": {349},
    "uncommitted changes hold up a move to another pachd": {420, 422, 428, 430},
}  # fmt: skip

UNPLAYED: set[int] = (
    set(range(21))  # a pachd that cannot be reached: a test of its own
    | {143}  # the original's temporary folder
    | set(range(182, 192))  # names of 256 characters and above the mount directory: tests of their own
    | {417, 424, 425, 429}  # its configuration file and process
    | set(range(440, 454))  # being killed: tests of their own
)
