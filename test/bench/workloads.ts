/** What the benchmark does with a disk: eight workloads, the same for every system. */

export interface Workload {
  /** One word, as in the tables. */
  readonly name: string
  readonly about: string
  readonly pattern: 'read' | 'write' | 'randread' | 'randwrite' | 'randrw'
  readonly blockBytes: number
  /** Requests at one time. */
  readonly depth: number
  /** A flush after so many writes. */
  readonly flushEvery?: number
  /** Of a mixed workload, in percent. */
  readonly reads?: number
}

const KIB = 1024

export const WORKLOADS: readonly Workload[] = [
  {
    name: 'seqread',
    about: 'sequential reads, 1 MiB, depth 8',
    pattern: 'read',
    blockBytes: 1024 * KIB,
    depth: 8,
  },
  {
    name: 'seqwrite',
    about: 'sequential writes, 1 MiB, depth 8',
    pattern: 'write',
    blockBytes: 1024 * KIB,
    depth: 8,
  },
  { name: 'rr1', about: 'random reads, 4 KiB, depth 1', pattern: 'randread', blockBytes: 4 * KIB, depth: 1 },
  {
    name: 'rr32',
    about: 'random reads, 4 KiB, depth 32',
    pattern: 'randread',
    blockBytes: 4 * KIB,
    depth: 32,
  },
  {
    name: 'rw1',
    about: 'random writes, 4 KiB, depth 1',
    pattern: 'randwrite',
    blockBytes: 4 * KIB,
    depth: 1,
  },
  {
    name: 'rw32',
    about: 'random writes, 4 KiB, depth 32',
    pattern: 'randwrite',
    blockBytes: 4 * KIB,
    depth: 32,
  },
  {
    name: 'flush32',
    about: 'random writes, 4 KiB, depth 32, a flush every 32',
    pattern: 'randwrite',
    blockBytes: 4 * KIB,
    depth: 32,
    flushEvery: 32,
  },
  {
    name: 'mixed32',
    about: '70 % reads, 30 % writes, random, 4 KiB, depth 32',
    pattern: 'randrw',
    blockBytes: 4 * KIB,
    depth: 32,
    reads: 70,
  },
]

/** Whether its figures are MB/s; those of others are operations per second. */
export const isSequential = ({ pattern }: Workload): boolean => pattern === 'read' || pattern === 'write'

/** Whether it changes anything. */
export const isWriting = ({ pattern }: Workload): boolean => pattern !== 'read' && pattern !== 'randread'
