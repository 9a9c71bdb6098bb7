/** One boot of a machine, from power on to power off: its lanes are opened, looked at, written to, and cut. */
import { formatDuration } from '../../../cli/format.ts'
import { reasonOf } from '../../../core/errors.ts'
import { type Random } from '../../../core/ports/random.ts'
import { modulePath } from './guest-image.ts'
import { type Notice } from './guest-link.ts'
import { type Lane } from './lane.ts'
import { type CutPlan } from './moments.ts'
import { type MachineOptions, VirtualMachine } from './virtual-machine.ts'

/** Far beyond what a boot and all openings take, also on a machine that is busy. */
const OPENING_MS_MAX = 300_000
/** A lane that is slow to acknowledge so many is cut nevertheless. */
const WRITING_MS_MAX = 40_000
/**
 * Before the next item is sent, at most. Without a pause those lanes whose writes are calls that block (SQLite) would leave
 * the others little of the guest's time.
 */
const PAUSE_MS_MAX = 40

export interface PowerCycleOptions extends Pick<MachineOptions, 'system' | 'image' | 'directory'> {
  readonly lanes: readonly Lane[]
  /** Null: as soon as everything has been looked at. */
  readonly plan: CutPlan | null
  /** How long opening all lanes is expected to take. */
  readonly openingMs: number
  readonly random: Random
}

export interface PowerCycleResult {
  /** How long opening took, from the start of the program in the guest; null when it was cut before that. */
  readonly openingMs: number | null
  /** Why the guest ended before its program had started; null when that is not so. */
  readonly notStarted: string | null
}

export class PowerCycle {
  readonly #options: PowerCycleOptions
  readonly #lanes: ReadonlyMap<string, Lane>
  readonly #timers: NodeJS.Timeout[] = []
  readonly #powerIsCut: Promise<void>
  #resolve!: () => void
  #machine: VirtualMachine | null = null
  #isCut = false
  #died: string | null = null
  #startedAt = 0
  #openedAt = 0
  #acknowledged = 0
  #writes = 0

  private constructor(options: PowerCycleOptions) {
    this.#options = options
    this.#lanes = new Map(options.lanes.map(lane => [lane.name, lane]))
    this.#powerIsCut = new Promise(resolve => (this.#resolve = resolve))
  }

  /** Never rejects for what happens in the guest: its lanes are told. */
  static async run(options: PowerCycleOptions): Promise<PowerCycleResult> {
    return new PowerCycle(options).#run()
  }

  async #run(): Promise<PowerCycleResult> {
    const { system, image, directory, lanes } = this.#options
    this.#machine = await VirtualMachine.start({
      system,
      image,
      directory,
      lanes: lanes.map(lane => ({
        name: lane.name,
        disk: lane.boot(() => this.#written(lane.name)),
        module: modulePath(lane.kind, lane.planted),
        barrier: lane.planted === null || lane.planted.patch !== null,
      })),
      told: notice => {
        // It may have come together with what led to the cut; nobody has seen it.
        if (!this.#isCut) this.#told(notice)
      },
      died: error => {
        this.#died = reasonOf(error)
        // Before its program has started nothing of ours has been asked for anything.
        if (this.#startedAt !== 0) for (const lane of lanes) lane.fail('failed', this.#died)
        this.#cut()
      },
    })
    this.#after(OPENING_MS_MAX, () => {
      for (const lane of lanes) {
        if (!lane.isOpen) lane.fail('failed', `it was not opened in ${formatDuration(OPENING_MS_MAX)}`)
      }
      this.#cut()
    })
    await this.#powerIsCut
    await this.#machine.cutPower()
    const openingMs = this.#openedAt === 0 ? null : this.#openedAt - this.#startedAt
    return { openingMs, notStarted: this.#startedAt === 0 ? this.#died : null }
  }

  #told(notice: Notice): void {
    switch (notice.kind) {
      case 'started':
        this.#started()
        break
      case 'open':
        this.#found(this.#lane(notice.lane), notice.standing)
        break
      case 'done':
        this.#done(notice.lane, notice.chain, notice.item)
        break
      case 'failed':
        this.#failed(notice.lane, notice.at, notice.reason)
        break
    }
  }

  #started(): void {
    const { plan, openingMs } = this.#options
    this.#startedAt = performance.now()
    if (plan?.moment.kind === 'opening') this.#after(plan.moment.part * openingMs, () => this.#cut())
  }

  #found(lane: Lane, standing: Readonly<Record<string, string>>): void {
    for (const chain of lane.found(standing)) this.#machine!.order(lane.next(chain))
    this.#lookedAt()
  }

  #lookedAt(): void {
    const { lanes, plan } = this.#options
    if (this.#openedAt !== 0 || lanes.some(lane => lane.fault === null && !lane.isOpen)) return
    this.#openedAt = performance.now()
    const awaited = plan === null || plan.moment.kind === 'opening' ? null : plan.moment.lane
    const inVain = lanes.every(({ name, fault }) => fault !== null || (awaited !== null && name !== awaited))
    if (plan === null || inVain) this.#cut()
    else this.#after(WRITING_MS_MAX, () => this.#cut())
  }

  #written(name: string): void {
    const moment = this.#options.plan?.moment
    if (moment?.kind !== 'disk-write' || moment.lane !== name || this.#openedAt === 0) return
    this.#writes += 1
    if (this.#writes >= moment.count) this.#cut()
  }

  #done(name: string, chain: string, item: number): void {
    const moment = this.#options.plan?.moment
    const lane = this.#lane(name)
    const next = lane.done(chain, item)
    const isOne = (one: readonly string[] | null): boolean => one === null || one.includes(chain)
    if (moment?.kind === 'acknowledgement' && moment.lane === name && isOne(moment.chains)) {
      this.#acknowledged += 1
      if (this.#openedAt !== 0 && this.#acknowledged >= moment.count) {
        this.#cut()
        return
      }
    }
    this.#after(this.#options.random.fraction() * PAUSE_MS_MAX, () => this.#machine!.order(lane.next(next)))
  }

  #failed(name: string, at: 'opening' | 'writing', reason: string): void {
    const moment = this.#options.plan?.moment
    // Programs speak so of what they find torn or half gone.
    if (at === 'opening') this.#lane(name).fail('damaged', `it does not open: ${reason}`)
    else this.#lane(name).fail('failed', reason)
    if (moment !== undefined && moment.kind !== 'opening' && moment.lane === name) this.#cut()
    else this.#lookedAt()
  }

  /** In the same turn of the event loop as what led to it: nothing is written in between. */
  #cut(): void {
    if (this.#isCut) return
    this.#isCut = true
    for (const timer of this.#timers) clearTimeout(timer)
    for (const lane of this.#options.lanes) lane.cutPower(this.#options.plan?.survival ?? 'nothing')
    this.#resolve()
  }

  #lane(name: string): Lane {
    const lane = this.#lanes.get(name)
    if (lane === undefined) throw new Error(`the guest has told of a lane ${name}`)
    return lane
  }

  #after(delayMs: number, action: () => void): void {
    this.#timers.push(setTimeout(action, delayMs))
  }
}
