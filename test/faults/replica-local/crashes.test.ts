import assert from 'node:assert/strict'
import { RegionSet } from '../../../core/mirror/region-set.ts'
import {
  BLOCK_BYTES,
  REGION_BYTES,
  byteLength,
  byteOffset,
  type Epoch,
  type RegionIndex,
} from '../../../core/units.ts'
import { RandomScheduler } from '../../support/random-scheduler.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'
import { ReplicaModel } from '../../support/replica-model.ts'

const SIZE = 6 * REGION_BYTES
const GROWN_SIZE = 8 * REGION_BYTES
const WORKERS = 6
const LIVES = 4
const UNIVERSES = Number(process.env['REPLICA_UNIVERSES'] ?? 60)

/**
 * One host with one replica under a random load, whose process dies or whose power is cut at a random disk call,
 * several times, also in the middle of what the crash before made necessary. After each crash the model says what
 * may be seen.
 */
class Universe {
  readonly #host: ReplicaHost
  readonly #scheduler: RandomScheduler
  readonly #model = new ReplicaModel(GROWN_SIZE)
  /** Highest epoch that was acknowledged, and highest that was asked for. */
  #epoch = 0
  #epochAsked = 0
  #sizeAsked = SIZE
  #powerWasCut = false
  /** A change or an epoch was acknowledged since the last clean mark. */
  #openSinceClean = false
  #cleaning = 0
  readonly counts = { powerCuts: 0, deaths: 0, crashesInRecovery: 0, changes: 0 }

  readonly #isHarsh: boolean

  /**
   * @param isHarsh the file system exposes stale blocks; then there are no deaths of processes and no discards, which
   * both can leave a hole where the durable map claims a block, and what is written there next has no protection
   */
  constructor(seed: number, isHarsh: boolean) {
    const delay = (): Promise<void> => this.#scheduler.delay()
    this.#isHarsh = isHarsh
    this.#host = new ReplicaHost(seed, SIZE, { delay, exposesStaleBlocks: isHarsh })
    this.#scheduler = new RandomScheduler(this.#host.random)
  }

  async run(): Promise<void> {
    const { random } = this.#host
    await this.#scheduler.run(this.#host.start(), Infinity)
    this.#epoch = this.#epochAsked = 1
    this.#openSinceClean = true
    for (let life = 0; life < LIVES; life += 1) {
      const work = this.#load()
      work.catch(() => undefined)
      await this.#scheduler.run(work, 20 + random.below(600))
      this.#crash()
      // Recovery itself may be cut short, again and again.
      while (!(await this.#scheduler.run(this.#host.open(), random.below(200) + 1))) {
        this.counts.crashesInRecovery += 1
        this.#crash()
      }
      await this.#scheduler.run(this.#check(), Infinity)
    }
  }

  #crash(): void {
    this.#scheduler.forget()
    if (this.#isHarsh || this.#host.random.fraction() < 0.5) {
      this.#host.powerCut()
      this.#powerWasCut = true
      this.counts.powerCuts += 1
    } else {
      this.#host.restartProcess()
      this.counts.deaths += 1
    }
  }

  async #check(): Promise<void> {
    const { replica, disk } = this.#host
    const actual = new Uint8Array(replica.size)
    await replica.read(byteOffset(0), actual)
    if (this.#powerWasCut) this.#model.checkAfterPowerCut(actual)
    else this.#model.checkAfterProcessDeath(actual)
    this.#model.checkIntents(actual, replica.intents)
    assert(replica.size === SIZE || replica.size === this.#sizeAsked, `size ${replica.size}`)
    assert(replica.acceptedEpoch >= this.#epoch && replica.acceptedEpoch <= this.#epochAsked)
    if (this.#powerWasCut && this.#openSinceClean) assert(replica.mayHaveLost, 'a power cut goes unnoticed')
    const raw = disk.contentOf(this.#host.path('.raw')).subarray(0, actual.length)
    assert(Buffer.compare(raw, actual) === 0, 'the raw file is not the content')
    await this.#checkHoles(actual)
    this.#powerWasCut = false
    this.#epochAsked += 1
    await replica.acceptEpoch(this.#epochAsked as Epoch, { rebuilding: false })
    this.#epoch = this.#epochAsked
    this.#openSinceClean = true
    this.#cleaning = 0
    if (this.#host.random.fraction() < 0.3) await replica.clearLost()
  }

  async #checkHoles(actual: Uint8Array): Promise<void> {
    let at = 0
    for (const { length, hole } of await this.#host.replica.allocation(
      byteOffset(0),
      byteLength(actual.length)
    )) {
      if (hole)
        assert(
          actual.subarray(at, at + length).every(byte => byte === 0),
          `hole at ${at} holds data`
        )
      at += length
    }
    assert.equal(at, actual.length)
  }

  async #load(): Promise<void> {
    await Promise.all(Array.from({ length: WORKERS }, () => this.#worker()))
  }

  async #worker(): Promise<void> {
    for (let turn = 0; turn < 40; turn += 1) {
      const kind = this.#host.random.fraction()
      if (kind < 0.8) await this.#change()
      else if (kind < 0.9) await this.#flush()
      else if (kind < 0.93) this.#clearIntents()
      else if (kind < 0.95) await this.#read()
      else if (kind < 0.97) await this.#acceptEpoch()
      else if (kind < 0.985) await this.#markClean()
      else await this.#grow()
    }
  }

  async #change(): Promise<void> {
    const { random, replica } = this.#host
    const [start, end] = this.#range()
    // Overlapping changes have no order in a replica: its callers keep them apart, and so do we.
    if (this.#model.overlapsUnderWay(start, end)) return
    const durable = random.fraction() < 0.25
    const isWrite = this.#isHarsh || random.fraction() < 0.7
    const change = this.#model.begin(start, end, isWrite ? 1 + random.below(255) : 0)
    this.counts.changes += 1
    const offset = byteOffset(start)
    const length = byteLength(end - start)
    if (isWrite) {
      await replica.write({ offset, data: new Uint8Array(length).fill(change.value), durable })
    } else if (random.fraction() < 0.5) {
      await replica.trim({ offset, length, durable })
    } else {
      await replica.zero({ offset, length, durable, keepAllocated: random.fraction() < 0.3 })
    }
    this.#model.acknowledge(change)
    this.#openSinceClean = this.#cleaning === 0
    if (durable) this.#model.makeDurable([change])
  }

  /** Whole blocks, parts of blocks, and pieces that cross blocks; mostly in few regions, so that they meet. */
  #range(): [number, number] {
    const { random, replica } = this.#host
    const hot = random.fraction() < 0.7 ? 2 * REGION_BYTES : replica.size
    const grain = random.fraction() < 0.5 ? BLOCK_BYTES : random.fraction() < 0.5 ? 512 : 1
    const start = Math.floor(random.below(hot) / grain) * grain
    const lengthMax = random.fraction() < 0.1 ? 3 * REGION_BYTES : 3 * BLOCK_BYTES
    const length = Math.max(Math.floor(random.below(lengthMax) / grain), 1) * grain
    return [start, Math.min(start + length, replica.size)]
  }

  async #flush(): Promise<void> {
    const covered = this.#model.finished()
    await this.#host.replica.flush()
    this.#model.makeDurable(covered)
    // Often, or nearly all regions have their intents already when it matters whether they come before the data.
    if (this.#host.random.fraction() < 0.7) this.#clearIntents()
  }

  #clearIntents(): void {
    const { replica } = this.#host
    const cleared = new RegionSet(replica.intents.size)
    for (const region of replica.intents) {
      if (!this.#model.isSettled(region)) continue
      cleared.add(region)
      this.#model.agree(region)
    }
    replica.clearIntents(cleared)
  }

  async #read(): Promise<void> {
    const [start, end] = this.#range()
    if (this.#model.overlapsUnderWay(start, end)) return
    const before = this.counts.changes
    const actual = new Uint8Array(end - start)
    await this.#host.replica.read(byteOffset(start), actual)
    if (before === this.counts.changes) this.#model.checkNow(actual, start)
  }

  async #acceptEpoch(): Promise<void> {
    this.#epochAsked += 1
    const asked = this.#epochAsked
    await this.#host.replica.acceptEpoch(asked as Epoch, { rebuilding: this.#host.random.fraction() < 0.5 })
    this.#openSinceClean = this.#cleaning === 0
    this.#epoch = Math.max(this.#epoch, asked)
  }

  async #markClean(): Promise<void> {
    const covered = this.#model.finished()
    // From here a crash may find the mark or not, whatever is acknowledged meanwhile.
    this.#cleaning += 1
    this.#openSinceClean = false
    await this.#host.replica.markClean()
    this.#model.makeDurable(covered)
    this.#cleaning -= 1
  }

  async #grow(): Promise<void> {
    const { replica } = this.#host
    if (replica.size === GROWN_SIZE) return
    this.#sizeAsked = GROWN_SIZE
    await replica.resize(byteLength(GROWN_SIZE))
    assert.equal(replica.size, GROWN_SIZE)
    assert(!replica.intents.has((GROWN_SIZE / REGION_BYTES) as RegionIndex))
  }
}

type Counts = Universe['counts']

async function runUniverses(count: number, isHarsh: boolean): Promise<Counts> {
  const sums: Counts = { powerCuts: 0, deaths: 0, crashesInRecovery: 0, changes: 0 }
  for (let seed = 1; seed <= count; seed += 1) {
    const universe = new Universe(seed, isHarsh)
    await universe.run().catch((error: unknown) => {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error })
    })
    for (const key of ['powerCuts', 'deaths', 'crashesInRecovery', 'changes'] as const) {
      sums[key] += universe.counts[key]
    }
  }
  return sums
}

describe('a local replica whose process dies or whose host loses power', function () {
  this.timeout(300_000)

  it('loses no durable byte, shows none that was never written, and has an intent wherever it may differ', async () => {
    const counts = await runUniverses(UNIVERSES, false)
    // The load must have been what the title says.
    assert(counts.powerCuts > UNIVERSES, `only ${counts.powerCuts} power cuts`)
    assert(counts.deaths > UNIVERSES, `only ${counts.deaths} deaths`)
    assert(counts.crashesInRecovery > UNIVERSES / 10, `only ${counts.crashesInRecovery} crashes in recovery`)
    assert(counts.changes > UNIVERSES * 50, `only ${counts.changes} changes`)
  })

  it('shows no stale block of the file system where a block is written for the first time', async () => {
    const counts = await runUniverses(UNIVERSES / 2, true)
    assert(counts.powerCuts > UNIVERSES, `only ${counts.powerCuts} power cuts`)
  })
})
