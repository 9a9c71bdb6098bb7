/**
 * The numbers of the NBD protocol, named as in its document
 * (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). Only those that XOSAN speaks.
 */

/** First 8 bytes of a server's greeting, `NBDMAGIC`, as two halves. */
export const GREETING_MAGIC = { high: 0x4e42444d, low: 0x41474943 } as const
/** Opens every option of a newstyle handshake, `IHAVEOPT`; also the second half of the greeting. */
export const OPTION_MAGIC = { high: 0x49484156, low: 0x454f5054 } as const
export const OPTION_REPLY_MAGIC = { high: 0x0003e889, low: 0x045565a9 } as const
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef

/** Flags of the greeting; a client answers with those that it understood. */
export const HandshakeFlag = { fixedNewstyle: 1 << 0, noZeroes: 1 << 1 } as const

export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
} as const

/** Set in the type of every option reply that is an error. */
const ERROR_BIT = 0x8000_0000

export const OptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errorUnsupported: ERROR_BIT + 1,
  errorPolicy: ERROR_BIT + 2,
  errorInvalid: ERROR_BIT + 3,
  errorTlsRequired: ERROR_BIT + 5,
  errorUnknown: ERROR_BIT + 6,
  errorShutdown: ERROR_BIT + 7,
  errorTooBig: ERROR_BIT + 9,
} as const

export const isErrorReply = (type: number): boolean => type >= ERROR_BIT

/** What an INFO reply of INFO or GO tells. */
export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const

/** What a server can do with an export, 16 bits. */
export const TransmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDontFragment: 1 << 7,
  canMultiConnection: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
} as const

export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const

export const CommandFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  dontFragment: 1 << 2,
  requestOne: 1 << 3,
  fastZero: 1 << 4,
} as const

/** Error numbers of replies: those of Linux, whatever the system below. */
export const NbdError = {
  permission: 1,
  io: 5,
  invalid: 22,
  noSpace: 28,
  overflow: 75,
  notSupported: 95,
  shutdown: 108,
} as const

/** Types of the chunks of a structured reply. */
export const Chunk = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  error: 0x8001,
  errorOffset: 0x8002,
} as const

/** On the last chunk of a structured reply. */
export const CHUNK_DONE = 1

/** The one metadata context that XOSAN serves: what takes space, and what reads as zeros. */
export const BASE_ALLOCATION = 'base:allocation'
export const AllocationFlag = { hole: 1 << 0, zero: 1 << 1 } as const

/** Longest string of the protocol, in bytes of UTF-8. */
export const STRING_BYTES_MAX = 4096
/** Largest payload of one request that both ends may count on, in bytes; libnbd and QEMU stop at the same. */
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024
