/** What the hosts have written about connections that they refused. */
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type AttackLab } from './attack-lab.ts'

/** A line of a log. */
export interface Refusal {
  readonly host: string
  readonly file: string
  /** Milliseconds since 1970. */
  readonly at: number
  /** Of the listener. */
  readonly port: number
  readonly address: string
  readonly cause: string
  readonly count: number
}

/** Between two lines of the same listener, address and cause. A timer may be a little early by the clock of the log. */
const WINDOW_MS = 59_000

/** Every line about a refusal that there is. */
export async function readRefusals(attacked: AttackLab): Promise<Refusal[]> {
  const all: Refusal[] = []
  for (const host of attacked.hosts) {
    const { log, state } = await attacked.pathsOf(host)
    for (const name of await readdir(log)) {
      all.push(...linesOf(host.name, name, await readFile(join(log, name), 'utf8')))
    }
    // A log that grows too long goes on in a new file.
    for (const name of ['etcd-gate.log.1', 'etcd-gate.log']) {
      const text = await readFile(join(state, name), 'utf8').catch(() => '')
      all.push(...linesOf(host.name, name, text))
    }
  }
  return all
}

function linesOf(host: string, file: string, text: string): Refusal[] {
  return parsed(text, '"a connection was refused"').map(line => {
    const { listener, address, cause, count, timestamp } = line as Record<string, string>
    const port = Number(listener!.slice(listener!.lastIndexOf(':') + 1))
    return {
      host,
      file,
      at: Date.parse(timestamp!),
      port,
      address: address!,
      cause: cause!,
      count: Number(count),
    }
  })
}

function parsed(text: string, marked: string): unknown[] {
  return text
    .split('\n')
    .filter(line => line.includes(marked) && line.endsWith('}'))
    .map(line => JSON.parse(line) as unknown)
}

/** Lines of one listener, address and cause that follow each other too soon, as sentences. */
export function tooOften(refusals: readonly Refusal[]): string[] {
  const last = new Map<string, number>()
  const faults = new Map<string, number>()
  for (const { host, file, port, address, cause, at } of refusals) {
    const key = `${host} ${file} port ${port}: ${cause} from ${address}`
    const before = last.get(key)
    if (before !== undefined && at - before < WINDOW_MS) faults.set(key, (faults.get(key) ?? 1) + 1)
    last.set(key, at)
  }
  return [...faults].map(([key, lines]) => `${key}: ${lines} lines, less than a minute apart`)
}
