import { type Coordinator } from '../../../../core/ports/coordinator.ts'
import { changeOf, itemIn, slotsText, textOf } from '../items.ts'
import { type Workload } from './workload.ts'

/**
 * Chains in a coordinator. Each item is a compare-and-swap of its chain's head, which sets one key and sometimes removes
 * another in the same transaction.
 */
export class CoordinatorChains implements Workload {
  readonly #coordinator: (chain: string) => Coordinator
  readonly #chains: readonly string[]
  /** Revision of each chain's head. */
  readonly #heads = new Map<string, number>()

  /** @param coordinator client of a chain */
  constructor(chains: readonly string[], coordinator: (chain: string) => Coordinator) {
    this.#chains = chains
    this.#coordinator = coordinator
  }

  async standing(): Promise<Record<string, string>> {
    const found: Record<string, string> = {}
    for (const chain of this.#chains) {
      const { entries, revision } = await this.#coordinator(chain).list(`power/${chain}/`)
      const slots = new Map<number, number>()
      let head = 0
      for (const entry of entries) {
        const name = entry.key.split('/')[2]!
        if (entry.revision > revision)
          throw new Error(`${entry.key} is of revision ${entry.revision}, of ${revision}`)
        if (name !== 'head') {
          slots.set(Number(name), itemIn(chain, entry.value))
          continue
        }
        head = Number(entry.value)
        this.#heads.set(chain, entry.revision)
      }
      found[chain] = slotsText(slots, head)
    }
    return found
  }

  async write(chain: string, item: number): Promise<void> {
    const { put, removed } = changeOf('slots', item)
    const key = (name: string | number): string => `power/${chain}/${name}`
    const { committed, revision } = await this.#coordinator(chain).transact(
      [{ key: key('head'), revision: this.#heads.get(chain) ?? 0 }],
      [
        { key: key('head'), value: String(item) },
        { key: key(put!), value: textOf(chain, item) },
        ...(removed === null ? [] : [{ key: key(removed), value: null }]),
      ]
    )
    if (!committed) throw new Error(`${chain}: item ${item} was refused`)
    this.#heads.set(chain, revision)
  }
}
