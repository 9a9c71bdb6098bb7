/** fio, an independent load generator, as the client of every system; and what it says. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { z } from 'zod'
import { isWriting, type Workload } from './workloads.ts'

const run = promisify(execFile)

/** What a disk is reached by. */
export type Target =
  | { readonly kind: 'nbd'; readonly uri: string }
  | { readonly kind: 'file'; readonly path: string; readonly direct: boolean }

export interface FioOptions {
  readonly target: Target
  readonly workload: Workload
  /** Of the disk that is used, from its beginning. */
  readonly bytes: number
  readonly seconds: number
  /** Words that make a command run in the network of the client's host. */
  readonly prefix: readonly string[]
  /**
   * The client flushes now and then, as every file system does. Without it a server cannot know that the client ever will,
   * and XOSAN makes each write durable before it answers, as tapdisk's guests need.
   */
  readonly flushes: boolean
}

/** What one run of a workload has measured. */
export interface Measurement {
  readonly requests: number
  readonly perSecond: number
  readonly bytesPerSecond: number
  /** In microseconds, of reads and writes together as the slower of the two. */
  readonly latencyUs: {
    readonly p50: number
    readonly p99: number
    readonly p999: number
    readonly most: number
  }
  /** Processor seconds of the client. */
  readonly clientSeconds: number
}

const directionSchema = z.looseObject({
  total_ios: z.number(),
  iops: z.number(),
  bw_bytes: z.number(),
  clat_ns: z.looseObject({ max: z.number(), percentile: z.record(z.string(), z.number()).optional() }),
})

const outputSchema = z.looseObject({
  jobs: z
    .array(
      z.looseObject({
        error: z.number(),
        read: directionSchema,
        write: directionSchema,
        job_runtime: z.number(),
        usr_cpu: z.number(),
        sys_cpu: z.number(),
      })
    )
    .length(1),
})

/** Rare enough to cost nothing (a flush in 512 writes), often enough that a server knows its client within 50 ms. */
const FLUSH_EVERY = { 1: 64, 8: 64, 32: 512 } as const
/** What it takes to connect and to say something, in milliseconds. */
const OVERHEAD_MS = 30_000

/** @throws Error with fio's words when it fails, or when a request does */
export async function runFio(options: FioOptions): Promise<Measurement> {
  const { prefix, seconds } = options
  const words = [...prefix, 'fio', ...fioArguments(options)]
  const { stdout } = await run(words[0]!, words.slice(1), {
    timeout: seconds * 1000 + OVERHEAD_MS,
    maxBuffer: 16 * 1024 * 1024,
  })
  // Its warnings come first.
  const parsed = outputSchema.parse(JSON.parse(stdout.slice(stdout.indexOf('{'))))
  const job = parsed.jobs[0]!
  if (job.error !== 0) throw new Error(`fio ended with error ${job.error} at ${options.workload.name}`)
  const directions = [job.read, job.write].filter(({ total_ios: count }) => count > 0)
  const slowest = (percentile: string): number =>
    Math.max(...directions.map(({ clat_ns: { percentile: all } }) => all?.[percentile] ?? 0)) / 1000
  const sum = (of: 'total_ios' | 'iops' | 'bw_bytes'): number =>
    directions.reduce((total, each) => total + each[of], 0)
  return {
    requests: sum('total_ios'),
    perSecond: sum('iops'),
    bytesPerSecond: sum('bw_bytes'),
    latencyUs: {
      p50: slowest('50.000000'),
      p99: slowest('99.000000'),
      p999: slowest('99.900000'),
      most: Math.max(...directions.map(({ clat_ns: { max } }) => max)) / 1000,
    },
    clientSeconds: ((job.usr_cpu + job.sys_cpu) / 100) * (job.job_runtime / 1000),
  }
}

/** @param seconds 0: once over everything, and no longer */
function fioArguments({ target, workload, bytes, seconds, flushes }: FioOptions): string[] {
  const { pattern, blockBytes, depth, flushEvery, reads } = workload
  const often = FLUSH_EVERY[depth as keyof typeof FLUSH_EVERY]
  const flush = flushEvery ?? (flushes && isWriting(workload) ? often : undefined)
  return [
    ...['--name=bench', '--thread', '--output-format=json', '--group_reporting'],
    ...(target.kind === 'nbd'
      ? ['--ioengine=nbd', `--uri=${target.uri}`]
      : ['--ioengine=io_uring', `--filename=${target.path}`, `--direct=${target.direct ? 1 : 0}`]),
    ...[`--rw=${pattern}`, `--bs=${blockBytes}`, `--iodepth=${depth}`, `--size=${bytes}`],
    // No two blocks alike, so that nobody gains by noticing; and random, so that nobody reads ahead.
    ...['--randrepeat=0', '--refill_buffers', '--buffer_compress_percentage=0'],
    ...(seconds === 0 ? [] : ['--norandommap', '--time_based', `--runtime=${seconds}`]),
    ...(flush === undefined ? [] : [`--fsync=${flush}`]),
    ...(reads === undefined ? [] : [`--rwmixread=${reads}`]),
  ]
}

const FILL: Workload = { name: 'fill', about: '', pattern: 'randwrite', blockBytes: 4096, depth: 32 }

/**
 * Writes every block once, in random order and small, as the measurement does: pages that were read or written in large
 * pieces are kept in large folios, and ext4 then takes twenty times as long for a small write.
 */
export async function fill(options: Omit<FioOptions, 'workload' | 'seconds' | 'flushes'>): Promise<void> {
  await runFioUntilDone({ ...options, workload: FILL, seconds: 0, flushes: true })
}

const FILL_MS = 600_000

async function runFioUntilDone(options: FioOptions): Promise<void> {
  const words = [...options.prefix, 'fio', ...fioArguments(options), '--end_fsync=1']
  await run(words[0]!, words.slice(1), { timeout: FILL_MS, maxBuffer: 16 * 1024 * 1024 })
}
