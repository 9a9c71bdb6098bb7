/**
 * `npm run entry-times`: what an entry script costs. `Volume.stat` through the whole chain against a Python that
 * does nothing, with the same interpreter flags; many calls at once; and what is said while the daemon is down.
 *
 *     node --import tsx test/faults/entry-times.ts [--calls 50] [--json]
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { wholeNumber } from '../../cli/commands/common.ts'
import { EntryScriptError, callEntryScript } from '../../cli/lab/entry-script.ts'
import { signal } from '../../daemon/supervision/process-handle.ts'
import { TestLab } from '../support/test-lab.ts'

const VOLUME_BYTES = 4 * 1024 * 1024
const AT_ONCE = 32
/** "At once" for a person, and far below the minute that static-vdis allows. */
const DOWN_DEADLINE_MS = 10_000

export interface EntryTimes {
  readonly bareMedianMs: number
  readonly bareP99Ms: number
  readonly statMedianMs: number
  readonly statP99Ms: number
  /** Median of the pairwise ratios. */
  readonly ratio: number
  readonly atOnceP99Ms: number
  /** While xosand is down. */
  readonly downError: string
  readonly downMs: number
  readonly queryWhileDown: boolean
  /** While xosand is there but does not answer. */
  readonly hungError: string
  readonly hungMs: number
}

/** Runs an interleaved measurement on a lab of one host. */
export async function measureEntryTimes(calls: number): Promise<EntryTimes> {
  const lab = await TestLab.start(1)
  try {
    const [host] = lab.hosts
    const volume = await lab.createVolume(VOLUME_BYTES)
    const { pluginRoot } = host!
    const parameters = { dbg: 'lab', sr: lab.sr.sr, key: volume.key }
    const stat = (): Promise<unknown> => callEntryScript(pluginRoot, 'volume', 'Volume.stat', parameters)
    const interpreter = interpreterOf(join(pluginRoot, 'volume', 'org.xen.xapi.storage.xosan', 'Volume.stat'))

    const bare: number[] = []
    const whole: number[] = []
    for (let call = 0; call < calls; call++) {
      bare.push(await timeOf(() => runBare(interpreter)))
      whole.push(await timeOf(stat))
    }
    const atOnce = await Promise.all(Array.from({ length: AT_ONCE }, () => timeOf(stat)))

    const control = await lab.control(host!)
    const xosand = (await control.named()).get('xosand')!
    signal(xosand, 'SIGSTOP')
    const hung = await failureOf(stat)
    await control.kill()
    const down = await failureOf(stat)
    const query = await callEntryScript(pluginRoot, 'volume', 'Plugin.Query', { dbg: 'lab' }).catch(
      () => null
    )
    return {
      bareMedianMs: quantile(bare, 0.5),
      bareP99Ms: quantile(bare, 0.99),
      statMedianMs: quantile(whole, 0.5),
      statP99Ms: quantile(whole, 0.99),
      ratio: quantile(
        whole.map((time, call) => time / bare[call]!),
        0.5
      ),
      atOnceP99Ms: quantile(atOnce, 0.99),
      downError: down.error,
      downMs: down.ms,
      queryWhileDown: typeof query === 'object' && query !== null && 'plugin' in query,
      hungError: hung.error,
      hungMs: hung.ms,
    }
  } finally {
    await lab.dispose()
  }
}

/** The interpreter and its flags from a script's first line. */
function interpreterOf(script: string): { program: string; flags: string[] } {
  const [program, ...flags] = readFileSync(script, 'utf8').split('\n', 1)[0]!.slice(2).trim().split(/\s+/)
  return { program: program!, flags }
}

async function runBare({ program, flags }: { program: string; flags: string[] }): Promise<void> {
  const child = spawn(program, [...flags, '-c', 'pass'], {
    cwd: '/',
    env: {},
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  child.stdin.end()
  child.stdout.resume()
  child.stderr.resume()
  await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
}

async function timeOf(action: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await action()
  return performance.now() - startedAt
}

async function failureOf(action: () => Promise<unknown>): Promise<{ error: string; ms: number }> {
  const startedAt = performance.now()
  const error = await action().then(
    () => 'no error at all',
    (failure: unknown) =>
      failure instanceof EntryScriptError && failure.code !== 'no JSON'
        ? [failure.code, ...failure.params].join(' ')
        : `not SMAPIv3's form: ${String(failure)}`
  )
  return { error, ms: Math.round(performance.now() - startedAt) }
}

function quantile(values: readonly number[], fraction: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))]!
  return Math.round(value * 100) / 100
}

async function main(): Promise<void> {
  const command = new Command('entry-times')
    .option('--calls <number>', 'calls of each kind', wholeNumber(1, 10_000), 50)
    .option('--json', 'print one JSON value on standard output')
    .parse()
  const { calls, json } = command.opts<{ calls: number; json?: boolean }>()
  const times = await measureEntryTimes(calls)
  if (json === true) process.stdout.write(`${JSON.stringify(times)}\n`)
  else {
    for (const line of [
      `bare Python, ${calls} calls:         median ${times.bareMedianMs} ms, p99 ${times.bareP99Ms} ms`,
      `Volume.stat, ${calls} calls:         median ${times.statMedianMs} ms, p99 ${times.statP99Ms} ms; ${times.ratio} times bare`,
      `Volume.stat, ${AT_ONCE} at once:       p99 ${times.atOnceP99Ms} ms`,
      `while xosand is down:          ${times.downError} (${times.downMs} ms)`,
      `while xosand does not answer:  ${times.hungError} (${times.hungMs} ms)`,
      `Plugin.Query meanwhile:        ${times.queryWhileDown ? 'answers' : 'DOES NOT ANSWER'}`,
    ]) {
      process.stdout.write(`${line}\n`)
    }
  }
  const clear = times.downError.startsWith('SR_BACKEND_FAILURE') && times.downMs < DOWN_DEADLINE_MS
  process.exitCode = clear && times.queryWhileDown ? 0 : 1
}

if (process.argv[1]?.endsWith('entry-times.ts') === true) await main()
