/**
 * Hosts that look after the members of etcd, against a model of what etcd lists and refuses: whatever happens to hosts,
 * and in whatever order they look and act, also upon what they saw some time ago, no step takes away a majority that
 * is there, and afterwards the wanted hosts have members.
 */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import {
  type CandidateHost,
  type ListedMember,
  type MemberStep,
  type Situation,
  nextStep,
  textOf,
  wantedHosts,
} from '../../../core/placement/coordinator-members.ts'
import { type HostId } from '../../../core/units.ts'

const TIMES = { replaceAfterMs: 600_000, patienceMs: 30_000 }
const ROUND_MS = 10_000
const HOSTS = ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I']
const WITNESSES = ['w', 'v']
/** Enough for hosts to be replaced one after the other, each after its time. */
const ROUNDS_TO_SETTLE = 60
const SETTLE_MS = 60_000

interface ModelHost {
  readonly host: HostId
  readonly witness: boolean
  leaving: boolean
  recorded: boolean
  up: boolean
  silentForMs: number
  /** Of which member it has the data. */
  data: string | null
  running: boolean
  /** What it saw, and what it will do about it. */
  step: MemberStep
  seen: string
  seenForMs: number
}

interface ModelMember {
  readonly id: string
  readonly host: HostId
  learner: boolean
  started: boolean
  caughtUp: boolean
}

class Model {
  readonly hosts: ModelHost[]
  members: ModelMember[]
  #ids = 0

  constructor(count: number, witnesses: number) {
    const names = [...HOSTS.slice(0, count), ...WITNESSES.slice(0, witnesses)]
    this.hosts = names.map((name, index) => ({
      host: name as HostId,
      witness: index >= count,
      leaving: false,
      recorded: true,
      up: true,
      silentForMs: 0,
      data: index === 0 ? 'm0' : null,
      running: index === 0,
      step: { kind: 'nothing' },
      seen: '',
      seenForMs: 0,
    }))
    this.members = [{ id: 'm0', host: names[0] as HostId, learner: false, started: true, caughtUp: true }]
  }

  /** Members that answer, by what is really so. */
  isAlive({ id, host }: ModelMember): boolean {
    return this.hosts.some(each => each.host === host && each.up && each.running && each.data === id)
  }

  decides(): boolean {
    const voters = this.members.filter(({ learner }) => !learner)
    return voters.filter(each => this.isAlive(each)).length > voters.length / 2
  }

  get candidates(): CandidateHost[] {
    return this.hosts
      .filter(({ recorded }) => recorded)
      .map(({ host, witness, leaving, silentForMs }) => ({ host, witness, leaving, silentForMs }))
  }

  get listed(): ListedMember[] {
    return this.members.map(member => ({ ...member, reachable: this.isAlive(member) }))
  }

  pass(ms: number): void {
    for (const host of this.hosts) {
      host.silentForMs = host.up ? 0 : host.silentForMs + ms
      host.seenForMs += ms
    }
    for (const member of this.members) member.caughtUp = this.isAlive(member)
  }

  /** What a host sees now, if it sees anything. */
  look(host: ModelHost): void {
    host.step = { kind: 'nothing' }
    if (!host.up) return
    // A host starts what it has before it has heard of anybody.
    if (host.data !== null) host.running = true
    if (!this.decides()) return
    const { host: self, running } = host
    const situation: Situation = {
      self,
      hosts: this.candidates,
      members: this.listed,
      hasData: host.data !== null,
      running,
      unchangedForMs: 0,
    }
    const text = textOf(situation, TIMES)
    if (text !== host.seen) Object.assign(host, { seen: text, seenForMs: 0 })
    host.step = nextStep({ ...situation, unchangedForMs: host.seenForMs }, TIMES)
  }

  /** @param fresh whether nothing has happened since the look */
  act(host: ModelHost, fresh: boolean): void {
    const { step } = host
    host.step = { kind: 'nothing' }
    if (!host.up || step.kind === 'nothing') return
    const decided = this.decides()
    switch (step.kind) {
      case 'start': {
        const own = this.members.find(member => member.host === host.host)
        if (host.data === null && own !== undefined) {
          assert.ok(own.learner && !own.started, 'a member without its data starts')
          host.data = own.id
          own.started = true
        }
        host.running = true
        break
      }
      case 'discard':
        assert.ok(!this.members.some(({ id }) => id === host.data), 'data of a member are removed')
        host.data = null
        host.running = false
        break
      case 'add':
        if (decided) this.#add(host)
        break
      case 'promote': {
        const member = this.members.find(({ id }) => id === step.id)
        if (decided && member !== undefined && this.isAlive(member)) member.learner = false
        break
      }
      case 'remove':
        if (decided) this.#remove(step.id, fresh)
        break
    }
    if (decided) assert.ok(this.decides(), `${step.kind} by ${host.host} took the majority away`)
  }

  /** As etcd refuses: a second learner, a second member of an address, and while a voter is away. */
  #add({ host }: ModelHost): void {
    if (this.members.some(member => member.learner || member.host === host || !this.isAlive(member))) return
    this.#ids += 1
    this.members.push({ id: `m${this.#ids}`, host, learner: true, started: false, caughtUp: false })
  }

  /** As etcd refuses, for a member that it hears; it lets one go that it does not hear. */
  #remove(id: string, fresh: boolean): void {
    const member = this.members.find(each => each.id === id)
    if (member === undefined) return
    const voters = this.members.filter(({ learner }) => !learner)
    const alive = voters.filter(each => this.isAlive(each)).length
    const refused =
      !member.learner && this.isAlive(member) && alive - 1 < 1 + Math.floor((voters.length - 1) / 2)
    // Whoever has just looked does not rely on it.
    if (fresh) assert.ok(!refused || voters.length === 1, `${id} is to be removed, with ${alive} alive`)
    if (!refused) this.members = this.members.filter(each => each.id !== id)
  }
}

type Event = readonly [
  what: 'look' | 'act' | 'fail' | 'return' | 'lose' | 'leave' | 'wait' | 'wipe',
  who: number,
]

const events = fc.array(
  fc.tuple(
    fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom('look' as const, 'act' as const) },
      { weight: 2, arbitrary: fc.constantFrom('wait' as const, 'return' as const) },
      {
        weight: 1,
        arbitrary: fc.constantFrom('fail' as const, 'lose' as const, 'leave' as const, 'wipe' as const),
      }
    ),
    fc.nat(20)
  ),
  { maxLength: 120 }
)

function happen(model: Model, [what, who]: Event): void {
  const host = model.hosts[who % model.hosts.length]!
  const isOnlyOne = model.hosts.filter(({ recorded, leaving }) => recorded && !leaving).length === 1
  switch (what) {
    case 'look':
      model.look(host)
      break
    case 'act':
      model.act(host, false)
      break
    case 'fail':
      Object.assign(host, { up: false, running: false, step: { kind: 'nothing' } })
      break
    case 'return':
      host.up = true
      break
    case 'lose':
    case 'wipe':
      // The second, together with the host's power.
      Object.assign(host, {
        data: null,
        running: false,
        step: { kind: 'nothing' },
        up: what === 'lose' && host.up,
      })
      break
    case 'leave':
      if (isOnlyOne) break
      if (host.leaving || !host.up) host.recorded = false
      host.leaving = true
      break
    case 'wait':
      model.pass(who * ROUND_MS)
      break
  }
}

describe('hosts that look after members of etcd', () => {
  it('never take a majority away, and end with members on the wanted hosts', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 0, max: 2 }),
        fc.nat(20),
        events,
        (count, witnesses, grown, story) => {
          const model = new Model(count, witnesses)
          for (let i = 0; i < grown; i++) round(model, ROUND_MS)
          for (const event of story) happen(model, event)
          if (!model.decides()) return
          for (let i = 0; i < ROUNDS_TO_SETTLE; i++) round(model, SETTLE_MS)
          const holders = new Set(model.members.map(({ host }) => host))
          const wanted = wantedHosts(model.candidates, holders, TIMES.replaceAfterMs)
          assert.ok(model.decides(), 'there is a majority')
          // A member that shall stay is away, and nobody is there in its place: etcd takes no other, so what would follow waits.
          if (model.members.some(member => wanted.includes(member.host) && !model.isAlive(member))) return
          // All hosts that stay are away.
          if (wanted.length === 0) return
          assert.deepEqual(
            model.members
              .filter(({ learner }) => !learner)
              .map(({ host }) => host)
              .sort(),
            [...wanted].sort()
          )
          for (const { host, up, data } of model.hosts) {
            assert.equal(
              data !== null && up,
              up && holders.has(host) && model.members.some(({ id }) => id === data),
              `data on ${host}`
            )
          }
        }
      ),
      { numRuns: 300 }
    )
  })
})

/** Every host looks and acts, one after the other. */
function round(model: Model, ms: number): void {
  model.pass(ms)
  for (const host of model.hosts) {
    model.look(host)
    model.act(host, true)
  }
}
