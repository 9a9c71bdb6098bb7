/** One lane as the runner sees it, from its first boot to its last. */
import { type Random } from '../../../core/ports/random.ts'
import { type Order } from './guest-link.ts'
import { type Standing, judge } from './judge.ts'
import { LANES, type LaneKind } from './lanes.ts'
import { type PlantedError } from './planted-errors.ts'
import { type Blocks, type Survival, VolatileDisk } from './volatile-disk.ts'

/** What went wrong in a lane, and at which of its cuts. */
export interface LaneFault {
  readonly kind: 'lost' | 'damaged' | 'failed'
  readonly reason: string
  readonly cuts: number
}

export class Lane {
  readonly name: string
  readonly kind: LaneKind
  readonly planted: PlantedError | null
  /** Power cuts so far, and how many of them it was open at. */
  cuts = 0
  opened = 0
  acknowledged = 0
  /** Items in flight at a cut, and how many of them were there after it. */
  inFlight = 0
  inFlightKept = 0
  /** Chains that are not durable, and that were older after a cut. */
  olderFound = 0
  volatileSectors = 0
  lostSectors = 0
  fault: LaneFault | null = null
  /** What was on the disk when the lane was opened last. */
  blocks: Blocks
  readonly #standings = new Map<string, Standing>()
  readonly #random: Random
  #disk: VolatileDisk | null = null
  /** Whether it has told, since the last boot, how it stands. */
  #open = false

  constructor(name: string, kind: LaneKind, planted: PlantedError | null, blocks: Blocks, random: Random) {
    this.name = name
    this.kind = kind
    this.planted = planted
    this.blocks = blocks
    this.#random = random
    for (const chain of Object.keys(LANES[kind].chains))
      this.#standings.set(chain, { acknowledged: 0, sent: 0 })
  }

  get isOpen(): boolean {
    return this.#open
  }

  /** A disk with its power on. @param written told of each write */
  boot(written: () => void): VolatileDisk {
    this.#open = false
    this.#disk = new VolatileDisk(LANES[this.kind].diskBytes, this.blocks, written)
    return this.#disk
  }

  /** What it found after a boot. @returns the chains to go on with; none when it is not as it must be */
  found(standing: Readonly<Record<string, string>>): string[] {
    this.#open = true
    this.opened += 1
    for (const [name, chain] of Object.entries(LANES[this.kind].chains)) {
      const before = this.#standings.get(name)!
      const verdict = judge(chain, before, standing[name] ?? 'nothing')
      if (verdict.kind !== 'kept') {
        this.fail(verdict.kind, `${name}: ${verdict.reason}`)
        return []
      }
      const { at } = verdict
      if (before.sent > before.acknowledged) {
        this.inFlight += 1
        if (at === before.sent) this.inFlightKept += 1
      }
      if (at < before.acknowledged) this.olderFound += 1
      this.#standings.set(name, { acknowledged: at, sent: at })
    }
    return LANES[this.kind].concurrent ? [...this.#standings.keys()] : [this.#any()]
  }

  /** The next item of a chain is sent. */
  next(chain: string): Order {
    const { acknowledged } = this.#standings.get(chain)!
    this.#standings.set(chain, { acknowledged, sent: acknowledged + 1 })
    return { lane: this.name, chain, item: acknowledged + 1 }
  }

  /** An item was acknowledged. @returns the chain to go on with */
  done(chain: string, item: number): string {
    const { sent } = this.#standings.get(chain)!
    if (item !== sent) throw new Error(`${this.name}: ${chain} acknowledged ${item} and was sent ${sent}`)
    this.#standings.set(chain, { acknowledged: item, sent: item })
    this.acknowledged += 1
    return LANES[this.kind].concurrent ? chain : this.#any()
  }

  fail(kind: LaneFault['kind'], reason: string): void {
    this.fault ??= { kind, reason, cuts: this.cuts }
  }

  /** Cuts the power of its disk. */
  cutPower(survival: Survival): void {
    const { blocks, volatileSectors, lostSectors } = this.#disk!.cutPower(survival, this.#random)
    this.cuts += 1
    this.volatileSectors += volatileSectors
    this.lostSectors += lostSectors
    // A disk whose lane has gone wrong stays as it was found, to be looked at.
    if (this.fault === null) this.blocks = blocks
    this.#open = false
  }

  #any(): string {
    const names = [...this.#standings.keys()]
    return names[Math.floor(this.#random.fraction() * names.length)]!
  }
}
