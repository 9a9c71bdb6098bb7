/**
 * Reads that never wait for a disk.
 *
 * preadv2(2) with RWF_NOWAIT (Linux 4.14) returns what the page cache holds. Node has no call for it, and its `readSync`
 * would stop the event loop for as long as a disk takes. It is not enough by itself:
 *
 * - From Linux 5.11 on it begins to read what is missing, and to find out where that lies can wait for the disk: 41 ms were
 *   seen on one that takes 20. So cachestat(2) (6.5) is asked first whether all of it is there; kernels between the two are not
 *   used for this.
 * - A page can carry a mark, left by the kernel's read-ahead, that lets its reader begin the next piece. Files that
 *   are read in this way are told not to read ahead (posix_fadvise(2)), so that no page gets one; a guest reads ahead for itself.
 */
import { constants, release } from 'node:os'

/** What came of one. */
export type CachedReadOutcome =
  | 'done'
  /** Some of it is not in memory. */
  | 'not cached'
  /** The system or this file system cannot do it, or something is wrong that `read` will tell. */
  | 'impossible'

export interface CachedRead {
  /** Prepares a file that was just opened. @returns false when it cannot be read in this way */
  prepare(fd: number): boolean
  /** Fills the whole buffer from a position of a file, or says why not. */
  read(fd: number, into: Uint8Array, position: number): CachedReadOutcome
}

const RWF_NOWAIT = 8
const POSIX_FADV_RANDOM = 1
/** Number of the system call on every architecture. */
const SYS_CACHESTAT = 451
const PAGE_BYTES = 4096n

type Check = 'none needed' | 'cachestat' | 'impossible'

let loading: Promise<CachedRead | null> | undefined

/** @returns null when the kernel does not allow it, foreign functions cannot be called, or XOSAN_NO_FFI=1 is set */
export function loadCachedRead(): Promise<CachedRead | null> {
  loading ??= process.env['XOSAN_NO_FFI'] === '1' ? Promise.resolve(null) : load().catch(() => null)
  return loading
}

/** How a kernel of a release, as uname(2) tells it, is kept from beginning to read. */
export function checkFor(kernel: string): Check {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(kernel) ?? [null, '0', '0']
  const version = Number(major) * 1000 + Number(minor)
  if (version < 4014) return 'impossible'
  if (version < 5011) return 'none needed'
  return version < 6005 ? 'impossible' : 'cachestat'
}

async function load(): Promise<CachedRead | null> {
  const check = checkFor(release())
  if (check === 'impossible') return null
  const { default: koffi } = await import('koffi')
  const library = koffi.load(null)
  const preadv2 = library.func('long preadv2(int, const void *, int, int64_t, int)') as unknown as (
    fd: number,
    vectors: BigUint64Array,
    count: number,
    position: number,
    flags: number
  ) => number
  const fadvise = library.func('int posix_fadvise(int, int64_t, int64_t, int)') as unknown as (
    fd: number,
    position: number,
    length: number,
    advice: number
  ) => number
  const cachestat = library.func('syscall', 'long', [
    'long',
    'long',
    'void *',
    'void *',
    'long',
  ]) as unknown as (
    number: number,
    fd: number,
    range: BigUint64Array,
    found: BigUint64Array,
    flags: number
  ) => number
  // struct iovec: where, and how many bytes. struct cachestat_range: from where, and how many. struct cachestat: the first of
  // five numbers is the pages that are there.
  const vector = new BigUint64Array(2)
  const range = new BigUint64Array(2)
  const found = new BigUint64Array(5)

  const isCached = (fd: number, length: number, position: number): boolean => {
    range[0] = BigInt(position)
    range[1] = BigInt(length)
    const pages = (range[0] + range[1] - 1n) / PAGE_BYTES - range[0] / PAGE_BYTES + 1n
    return cachestat(SYS_CACHESTAT, fd, range, found, 0) === 0 && found[0] === pages
  }

  return {
    prepare: fd => {
      if (check === 'cachestat') {
        range.fill(0n)
        if (cachestat(SYS_CACHESTAT, fd, range, found, 0) !== 0) return false
      }
      return fadvise(fd, 0, 0, POSIX_FADV_RANDOM) === 0
    },
    read: (fd, into, position) => {
      if (check === 'cachestat' && !isCached(fd, into.length, position)) return 'not cached'
      vector[0] = koffi.address(into)
      vector[1] = BigInt(into.length)
      const count = preadv2(fd, vector, 1, position, RWF_NOWAIT)
      if (count === into.length) return 'done'
      if (count >= 0) return 'not cached'
      const error = koffi.errno()
      return error === constants.errno.EAGAIN || error === constants.errno.EINTR ? 'not cached' : 'impossible'
    },
  }
}
