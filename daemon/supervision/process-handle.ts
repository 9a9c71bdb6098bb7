import { readFileSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * One run of one program, told apart from a later process that was given the same pid: the kernel never gives
 * the same pid and the same start time twice within one boot.
 */
export interface ProcessHandle {
  readonly pid: number
  /** Start time in clock ticks since boot (field 22 of /proc/PID/stat, see proc(5)). */
  readonly startTicks: number
}

/** What a process is doing, as far as a drill cares. */
export type ProcessCondition = 'up' | 'paused' | 'down'

/** Between two looks at /proc while waiting for a process to change. Twice as often gains nothing anybody sees. */
const POLL_MS = 20

interface ProcessStat {
  readonly state: string
  readonly startTicks: number
}

/** @returns null when there is no such process @throws an error of the system when that cannot be found out */
function readStat(pid: number): ProcessStat | null {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch (error) {
    if (isGone(error)) return null
    throw error
  }
  // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const state = fields[0]
  const startTicks = Number(fields[19])
  return state === undefined || !Number.isSafeInteger(startTicks) ? null : { state, startTicks }
}

/** A process that ended before its file was opened, or while it was read. */
const isGone = (error: unknown): boolean =>
  ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')

/**
 * Takes down who a living process is.
 * @returns null when there is none, or only its zombie
 * @throws an error of the system when that cannot be found out
 */
export function handleOf(pid: number): ProcessHandle | null {
  const stat = readStat(pid)
  return stat === null || isEnded(stat.state) ? null : { pid, startTicks: stat.startTicks }
}

/** A zombie has ended; only its parent has not looked yet (and in a container perhaps never will). */
const isEnded = (state: string): boolean => state === 'Z' || state === 'X'

/** What a process is doing; one of which that cannot be found out, for want of descriptors, is taken to go on. */
export function conditionOf(handle: ProcessHandle): ProcessCondition {
  let stat: ProcessStat | null
  try {
    stat = readStat(handle.pid)
  } catch {
    return 'up'
  }
  if (stat === null || stat.startTicks !== handle.startTicks || isEnded(stat.state)) {
    return 'down'
  }
  return stat.state === 'T' || stat.state === 't' ? 'paused' : 'up'
}

/**
 * Signals this process and never another one that has its pid by now.
 *
 * @returns false when it has ended
 * @throws an error of the system when that cannot be found out; then nobody is signalled
 */
export function signal(handle: ProcessHandle, name: NodeJS.Signals): boolean {
  if (readStat(handle.pid) === null || conditionOf(handle) === 'down') {
    return false
  }
  try {
    process.kill(handle.pid, name)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') {
      return false
    }
    throw error
  }
}

/** Waits until all of them are in a condition. @returns those that are not when the time (in ms) is over */
export async function waitForCondition(
  handles: readonly ProcessHandle[],
  condition: ProcessCondition,
  timeoutMs: number
): Promise<ProcessHandle[]> {
  const end = performance.now() + timeoutMs
  for (;;) {
    const others = handles.filter(handle => {
      const now = conditionOf(handle)
      return now !== condition && (now !== 'down' || condition === 'up')
    })
    if (others.length === 0 || performance.now() >= end) {
      return others
    }
    await delay(POLL_MS)
  }
}

/**
 * Living processes whose arguments include all of these words. Finds what a supervisor started in the moment
 * before it was killed, too late for its pid file.
 * @throws an error of the system when one cannot be looked at: it might be one of them
 */
export async function processesWithArguments(...words: readonly string[]): Promise<ProcessHandle[]> {
  const found: ProcessHandle[] = []
  for (const name of await readdir('/proc')) {
    const pid = Number(name)
    if (!Number.isSafeInteger(pid) || pid === process.pid) {
      continue
    }
    const their: string[] = await readFile(`/proc/${name}/cmdline`, 'utf8').then(
      text => text.split('\0'),
      (error: unknown) => {
        if (isGone(error)) return []
        throw error
      }
    )
    const handle = words.every(word => their.includes(word)) ? handleOf(pid) : null
    if (handle !== null) {
      found.push(handle)
    }
  }
  return found
}

/** Whether a process was started with exactly these arguments, after the name of its program. */
export async function hasArguments({ pid }: ProcessHandle, words: readonly string[]): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return text.split('\0').slice(1, -1).join('\0') === words.join('\0')
}
