/**
 * Reads that never wait for a disk: preadv2(2) with RWF_NOWAIT returns what the page cache holds (Linux 4.14 and later).
 * Node has no call for it, and its `readSync` would stop the event loop for as long as a disk takes.
 */
import { constants } from 'node:os'

/** What came of one. */
export type CachedReadOutcome =
  | 'done'
  /** Some of it is not in memory. */
  | 'not cached'
  /** The system or this file system cannot do it, or something is wrong that `read` will tell. */
  | 'impossible'

/** Fills the whole buffer from a position of a file, or says why not. */
export type CachedRead = (fd: number, into: Uint8Array, position: number) => CachedReadOutcome

const RWF_NOWAIT = 8

let loading: Promise<CachedRead | null> | undefined

/**
 * @returns null when foreign functions cannot be called here, or the environment says XOSAN_NO_FFI=1
 */
export function loadCachedRead(): Promise<CachedRead | null> {
  loading ??= process.env['XOSAN_NO_FFI'] === '1' ? Promise.resolve(null) : load().catch(() => null)
  return loading
}

async function load(): Promise<CachedRead> {
  const { default: koffi } = await import('koffi')
  const preadv2 = koffi.load(null).func('long preadv2(int, const void *, int, int64_t, int)') as unknown as (
    fd: number,
    vectors: BigUint64Array,
    count: number,
    position: number,
    flags: number
  ) => number
  // struct iovec: where, and how many bytes.
  const vector = new BigUint64Array(2)
  return (fd, into, position) => {
    vector[0] = koffi.address(into)
    vector[1] = BigInt(into.length)
    const count = preadv2(fd, vector, 1, position, RWF_NOWAIT)
    if (count === into.length) return 'done'
    if (count >= 0) return 'not cached'
    const error = koffi.errno()
    return error === constants.errno.EAGAIN || error === constants.errno.EINTR ? 'not cached' : 'impossible'
  }
}
