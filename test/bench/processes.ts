/** What the processes of a system have used. */
import { readFileSync, readdirSync } from 'node:fs'

export interface Usage {
  /** Processor seconds so far, in steps of a hundredth. */
  readonly seconds: number
  /** Most resident memory that each has had, summed, in bytes; and what of it is not shared with other processes. */
  readonly peakBytes: number
  readonly anonymousBytes: number
}

/** What processes have used so far; those that have ended count nothing. */
export function usageOf(pids: readonly number[]): Usage {
  const all = pids.map(usageOfOne)
  const sum = (of: keyof Usage): number => all.reduce((total, each) => total + each[of], 0)
  return { seconds: sum('seconds'), peakBytes: sum('peakBytes'), anonymousBytes: sum('anonymousBytes') }
}

function usageOfOne(pid: number): Usage {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const kib = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0)
    return {
      seconds: secondsOf(pid),
      peakBytes: kib('VmHWM') * 1024,
      anonymousBytes: kib('RssAnon') * 1024,
    }
  } catch {
    return { seconds: 0, peakBytes: 0, anonymousBytes: 0 }
  }
}

/** USER_HZ, which is 100 wherever Linux runs (proc(5)). */
const TICKS_PER_SECOND = 100

/** Threads that have ended count, too: nbdkit has one for each connection. */
function secondsOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  // After the name in parentheses, which may hold anything; user and system time are the 14th and 15th field of all.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** A process and all that it has started. */
export function withChildren(pid: number): number[] {
  const children: number[] = []
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const text = readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8')
      children.push(
        ...text
          .split(' ')
          .filter(word => word !== '')
          .map(Number)
      )
    }
  } catch {
    // It has ended.
  }
  return [pid, ...children.flatMap(withChildren)]
}
