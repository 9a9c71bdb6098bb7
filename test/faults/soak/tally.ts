/** What a soak has found: faults done, waits, and what its hosts say of resyncs. */
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { REGION_BYTES } from '../../../core/units.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { FAULT_KINDS, type FaultKind } from './fault-kinds.ts'

export interface KindRow {
  readonly kind: FaultKind | 'several at once'
  /** How often it was done, alone or with others. */
  count: number
  /** The longest wait of a guest whose host stayed, when it was done alone; in milliseconds. */
  longestWaitMs: number | null
  /** The longest time until another host served, when it was done alone. */
  longestMoveMs: number | null
}

interface Times {
  readonly waits: readonly number[]
  readonly moves: readonly number[]
}

export class Tally {
  readonly faults: string[] = []
  episodes = 0
  readonly #rows: readonly KindRow[]

  constructor() {
    this.#rows = [...(Object.keys(FAULT_KINDS) as FaultKind[]), 'several at once' as const].map(kind => ({
      kind,
      count: 0,
      longestWaitMs: null,
      longestMoveMs: null,
    }))
  }

  get rows(): readonly KindRow[] {
    return this.#rows
  }

  fault(text: string): void {
    this.faults.push(text)
  }

  episode(kinds: readonly FaultKind[], { waits, moves }: Times): void {
    this.episodes++
    for (const kind of kinds) this.#row(kind).count++
    const row = this.#row(kinds.length === 1 ? kinds[0]! : 'several at once')
    if (kinds.length > 1) row.count++
    row.longestWaitMs = longest(row.longestWaitMs, waits)
    row.longestMoveMs = longest(row.longestMoveMs, moves)
  }

  #row(kind: KindRow['kind']): KindRow {
    return this.#rows.find(row => row.kind === kind)!
  }
}

const longest = (before: number | null, more: readonly number[]): number | null =>
  more.length === 0 ? before : Math.max(before ?? 0, ...more)

/** What the datapath processes of a lab have written into their logs. */
export interface Happened {
  readonly resyncs: number
  /** Bytes of the regions that resyncs began with. */
  readonly bytesResynced: number
  readonly reconciled: number
  readonly membershipChanges: number
}

const line = z.object({ message: z.string(), regions: z.number().optional() })

export async function whatHappened(lab: TestLab): Promise<Happened> {
  let [resyncs, regions, reconciled, membershipChanges] = [0, 0, 0, 0]
  for (const { name } of lab.hosts) {
    const directory = join(lab.labDirectory, name, 'log')
    for (const file of (await readdir(directory)).filter(file => file.startsWith('datapath'))) {
      for (const text of (await readFile(join(directory, file), 'utf8')).split('\n')) {
        const parsed = text.startsWith('{') ? line.safeParse(jsonOf(text)) : null
        if (parsed?.success !== true) continue
        if (parsed.data.message === 'rebuilding') {
          resyncs++
          regions += parsed.data.regions ?? 0
        } else if (parsed.data.message === 'reconciled') reconciled++
        else if (parsed.data.message === 'membership changed') membershipChanges++
      }
    }
  }
  return { resyncs, bytesResynced: regions * REGION_BYTES, reconciled, membershipChanges }
}

/** A process that was killed may have left half a line. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
