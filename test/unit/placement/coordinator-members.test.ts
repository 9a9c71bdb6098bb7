/** Which hosts have a member of etcd, and who takes which step, by example. */
import assert from 'node:assert/strict'
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
const [SILENT, AWAY] = [30_000, 600_001]

/** `A B w? C~ D! E-`: a host, a witness, one that is silent, one that is away, one that leaves. */
const hostsOf = (text: string): CandidateHost[] =>
  text
    .split(' ')
    .filter(word => word !== '')
    .map(word => ({
      host: word[0] as HostId,
      witness: word[0] === 'w' || word[0] === 'v',
      leaving: word.endsWith('-'),
      silentForMs: word.endsWith('!') ? AWAY : word.endsWith('~') ? SILENT : 0,
    }))

/** `A B† C? D+ E*`: voters, a dead one, a learner that has not started, one that has not and one that has caught up. */
const membersOf = (text: string): ListedMember[] =>
  text
    .split(' ')
    .filter(word => word !== '')
    .map(word => ({
      id: word[0]!.toLowerCase(),
      host: word[0] as HostId,
      learner: /[?+*]$/.test(word),
      started: !word.endsWith('?'),
      reachable: !/[?†]$/.test(word),
      caughtUp: word.endsWith('*'),
    }))

describe('the hosts that have a member of etcd', () => {
  const wanted: readonly [hosts: string, holders: string, wanted: string, why: string][] = [
    ['', '', '', 'nobody'],
    ['A', '', 'A', 'one host'],
    ['A w', '', 'A', 'a witness of one host would only be one more to fail'],
    ['A B', '', 'A', 'with two, the loss of either would stop both'],
    ['A B', 'B', 'B', 'who has it keeps it'],
    ['A B w', 'A', 'A B w', 'a witness makes three of two'],
    ['w A B', 'A', 'A B w', 'wherever its record is'],
    ['A B w~', 'A', 'A B w', 'a witness that was away for a moment'],
    ['A B w!', 'A', 'A', 'a witness that does not come: two members would be worse than one'],
    ['A B w!', 'A B w', 'A B w', 'a witness that is a member may come back'],
    ['A B C', 'A', 'A B C', 'three hosts'],
    ['A B C w', 'A', 'A B C', 'a witness is the last choice'],
    ['A B C w', 'A B w', 'A B w', 'but what it has it keeps'],
    ['A B C~ w', 'A B', 'A B w', 'who is up comes before who is not'],
    ['A B C~', 'A B', 'A B C', 'unless there is nobody else'],
    ['A B C D E F', 'A', 'A B C', 'three up to six'],
    ['A B C D E F G', 'A', 'A B C D E', 'five from seven'],
    ['A B C D E F w', 'A', 'A B C', 'a witness is not the seventh'],
    ['A B C D E F G', 'A C E F G', 'A C E F G', 'those that have one already'],
    ['A B C D E F', 'A C E F G', 'A C E', 'no more than three when there are six again'],
    ['A B C! D', 'A B C', 'A B D', 'who is away too long is replaced'],
    ['A B C! D!', 'A B C', 'A B C', 'if there is somebody'],
    ['A B C~ D', 'A B C', 'A B C', 'and not before'],
    ['A B C- D', 'A B C', 'A B D', 'who leaves is replaced'],
    ['A B C-', 'A B C', 'A', 'and three become one when two are left'],
    ['A B C w-', 'A B w', 'A B C', 'a witness that leaves'],
    ['A! B! C! D E F', 'A B C', 'D E F', 'a majority that is away'],
  ]
  for (const [hosts, holders, expected, why] of wanted) {
    it(`are ${expected === '' ? 'none' : expected} of "${hosts}" with members on "${holders}": ${why}`, () => {
      const holding = new Set(membersOf(holders).map(({ host }) => host!))
      assert.equal(wantedHosts(hostsOf(hosts), holding, TIMES.replaceAfterMs).join(' '), expected)
    })
  }
})

describe('a host that looks after its member of etcd', () => {
  const stepOf = (self: string, hosts: string, members: string, more: Partial<Situation> = {}): string => {
    const listed = membersOf(members)
    const own = listed.some(({ host, started }) => host === self && started)
    const step: MemberStep = nextStep(
      {
        self: self as HostId,
        hosts: hostsOf(hosts),
        members: listed,
        hasData: own,
        running: own,
        unchangedForMs: 10_000,
        ...more,
      },
      TIMES
    )
    return 'id' in step ? `${step.kind} ${step.id}` : step.kind
  }
  const LATE = { unchangedForMs: 40_000 }
  const LOST = { hasData: false, running: false }
  const steps: readonly [
    self: string,
    hosts: string,
    members: string,
    step: string,
    more?: Partial<Situation>,
  ][] = [
    // Growing.
    ['A', 'A B C', 'A', 'nothing'],
    ['B', 'A B C', 'A', 'add'],
    ['C', 'A B C', 'A', 'nothing'],
    ['C', 'A B C', 'A', 'add', LATE],
    ['C', 'A B~ C', 'A', 'add'],
    ['B', 'A B', 'A', 'nothing'],
    ['B', 'A B C', 'A†', 'nothing'],
    ['C', 'A B C', 'A B?', 'nothing', LATE],
    ['B', 'A B C', 'A B?', 'start'],
    ['B', 'A B C', 'A B+', 'nothing'],
    ['B', 'A B C', 'A B*', 'promote b'],
    ['B', 'A B C~', 'A B*', 'nothing'],
    ['B', 'A B C D E', 'A C† D† B*', 'nothing'],
    ['A', 'A B C', 'A B*', 'nothing', LATE],
    ['C', 'A B C', 'A B', 'add'],
    ['C', 'A B C', 'A B C*', 'promote c'],
    ['D', 'A B C D', 'A B C', 'nothing', LATE],
    // Coming back.
    ['C', 'A B C', 'A B C†', 'start', { running: false }],
    ['C', 'A B C', 'A B C†', 'remove c', LOST],
    ['C', 'A B C', 'A B† C†', 'nothing', LOST],
    ['A', 'A B', 'A†', 'nothing', LOST],
    ['C', 'A B C', 'A B', 'discard', { hasData: true }],
    ['C', 'A B C', 'A B', 'discard', { running: true }],
    ['B', 'A B C', 'A B*', 'remove b', LOST],
    // Silent hosts.
    ['A', 'A B C~', 'A B C†', 'nothing', LATE],
    ['A', 'A B C!', 'A B C†', 'nothing', LATE],
    ['A', 'A B C! D', 'A B C†', 'remove c'],
    ['B', 'A B C! D', 'A B C†', 'nothing'],
    ['B', 'A B C! D', 'A B C†', 'remove c', LATE],
    ['B', 'A~ B C! D', 'A B C†', 'remove c'],
    ['D', 'A B C! D', 'A B C†', 'nothing'],
    ['A', 'A B C! D', 'A B† C†', 'nothing', LATE],
    ['D', 'A B C! D', 'A B', 'add'],
    ['A', 'A B C!', 'A B C?', 'remove c'],
    // Hosts that go.
    ['A', 'A B D', 'A B C', 'nothing', LATE],
    ['A', 'A B D', 'A B C D', 'remove c'],
    ['A', 'A B D', 'A B C†', 'remove c'],
    ['A', 'A B D', 'A B C†', 'nothing', { unchangedForMs: 1_000 }],
    ['C', 'A B D', 'A B C D', 'nothing', LATE],
    ['C', 'A B C- D', 'A B C', 'nothing', LATE],
    ['D', 'A B C- D', 'A B C', 'add'],
    ['D', 'A B C- D', 'A B C D*', 'promote d'],
    ['C', 'A B C- D', 'A B C D', 'remove c'],
    ['A', 'A B C- D', 'A B C D', 'nothing'],
    ['A', 'A B C- D', 'A B C D', 'remove c', LATE],
    ['C', 'A B C-', 'A B C', 'nothing'],
    ['B', 'A B C-', 'A B C', 'remove b'],
    ['C', 'A B C-', 'A C', 'remove c'],
    ['A', 'A- B', 'A', 'nothing', LATE],
    ['B', 'A- B', 'A', 'add'],
    ['B', 'A- B', 'A B*', 'promote b'],
    ['A', 'A- B', 'A B', 'remove a'],
    // Two with a witness.
    ['w', 'A B w', 'A B', 'add'],
    ['w', 'A B w', 'A B w*', 'promote w'],
    ['B', 'A B w!', 'A B', 'remove b'],
    ['B', 'A B w', 'A B*', 'promote b'],
    // What is not known.
    ['A', '', 'A B C', 'nothing', LATE],
    ['A', 'B C', 'A B C', 'nothing', LATE],
  ]
  for (const [self, hosts, members, expected, more = {}] of steps) {
    it(`${self} of "${hosts}" does ${expected} with "${members}" ${JSON.stringify(more)}`, () => {
      assert.equal(stepOf(self, hosts, members, more), expected)
    })
  }

  it('waits its turn anew when a host has fallen silent, but not while it stays so', () => {
    const situation = (hosts: string, silentForMs: number): Situation => ({
      self: 'A' as HostId,
      hosts: hostsOf(hosts).map(host => (host.host === 'B' ? { ...host, silentForMs } : host)),
      members: membersOf('A'),
      hasData: true,
      running: true,
      unchangedForMs: 0,
    })
    const texts = [0, 10_000, 25_000, 40_000, 90_000, 700_000].map(ms => textOf(situation('A B', ms), TIMES))
    assert.deepEqual(
      texts.map((text, i) => text === texts[i - 1]),
      [false, true, false, true, false, false]
    )
  })
})
