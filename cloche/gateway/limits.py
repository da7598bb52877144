"""The bounds of what the gateway reads, in one place. AWS's own where it has one."""

# ------------------------------------------------------------ a request's head, before anything
HEAD_BYTES = 64 * 1024
HEADERS = 512
HEAD_TIMEOUT_S = 30.0  # from a head's first byte to its end
SILENT_S = 60.0  # a new connection on which nothing comes
LINGER_S, LINGER_BYTES = 2.0, 1024 * 1024  # for the answer to a refused head to arrive
CHUNK_FRAME_BYTES = 64  # a chunk's size and line ends, beside its data
S3_HEAD_BYTES = 8192

# ------------------------------------------------------------ a body
UNSIGNED_BYTES = 64 * 1024  # of a body that nobody signed
UNPROVEN_BYTES = 512 * 1024 * 1024  # of all bodies whose signature is not proven yet
BODY_IDLE_S = 60.0  # between two pieces of a body
BODY_BYTES = 64 * 1024 * 1024  # of what no operation streams
XML_BYTES = 4 * 1024 * 1024
FORM_BYTES = 4 * 1024 * 1024
FORM_PREFACE_BYTES = 20 * 1024  # of a form's fields before its file
FORM_HEAD_BYTES = 4 * 1024  # of one part's headers

# ------------------------------------------------------------ a WebSocket
MESSAGE_BYTES = 16 * 1024 * 1024
PING_S = 20.0  # between two pings, and for the answer to one

# ------------------------------------------------------------ what is parsed
LONG_BYTES = 256 * 1024  # a longer document is parsed and validated off the event loop
# A longer body is hashed off the event loop. So much takes 6 ms; an InvokeEndpoint has 6 MB.
HASHED_BYTES = 8 * 1024 * 1024
# PutMetricData takes 1,000 metrics of 150 values and 150 counts.
NODES = 500_000  # values of a document: JSON, CBOR
ELEMENTS = 100_000  # of XML: CompleteMultipartUpload takes 10,000 parts of several each
DEPTH = 64
FORM_FIELDS = 100_000
FORM_NODES = 250_000  # parts of all names of a form
FORM_NAME_PARTS = 24
ERRORS = 10  # that validation lists, as AWS's services do
SHOWN_CHARACTERS = 2048  # of a value that an error repeats
DATE_CHARACTERS = 64
TRAILER_BYTES = 16 * 1024
