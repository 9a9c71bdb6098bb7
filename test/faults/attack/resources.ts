import { readFileSync, readdirSync } from 'node:fs'

/** What a process has of the machine. */
export interface Resources {
  readonly descriptors: number
  readonly residentMib: number
}

/** @returns nothing of a process that has ended */
export function resourcesOf(pid: number): Resources {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const kib = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0)
    return { descriptors: readdirSync(`/proc/${pid}/fd`).length, residentMib: Math.round(kib / 1024) }
  } catch {
    return { descriptors: 0, residentMib: 0 }
  }
}

/** Looks again and again, and keeps the most of each. */
export class Watch {
  readonly before: ReadonlyMap<number, Resources>
  readonly #most: Map<number, Resources>
  readonly #timer: NodeJS.Timeout

  constructor(pids: readonly number[]) {
    this.before = new Map(pids.map(pid => [pid, resourcesOf(pid)]))
    this.#most = new Map(this.before)
    this.#timer = setInterval(() => this.#look(), 500)
  }

  /** @returns the most that any of the processes had */
  end(): ReadonlyMap<number, Resources> {
    clearInterval(this.#timer)
    this.#look()
    return this.#most
  }

  #look(): void {
    for (const [pid, { descriptors, residentMib }] of this.#most) {
      const now = resourcesOf(pid)
      this.#most.set(pid, {
        descriptors: Math.max(descriptors, now.descriptors),
        residentMib: Math.max(residentMib, now.residentMib),
      })
    }
  }
}
