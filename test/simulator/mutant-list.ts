/** A promise that a checker watches over; `simulator.md` says what each is about. */
type Promised = 'P1' | 'P2' | 'P3' | 'P4' | 'P5' | 'P6' | 'P7' | 'P8' | 'P9'

/** One deliberate error. */
export interface Mutant {
  /** What the code does wrong with it. */
  readonly name: string
  /** Promises of the design that it breaks. Whoever catches it must check one of them. */
  readonly breaks: readonly Promised[]
  readonly file: string
  /** A passage that is in the file exactly once. */
  readonly find: string
  readonly replace: string
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'a change is acknowledged before the record says who missed it',
    breaks: ['P1', 'P4'],
    file: 'core/mirror/acknowledgement.ts',
    find: "failed: 'take out' },",
    replace: "failed: 'enough' },",
  },
  {
    name: 'overlapping changes run at the same time',
    breaks: ['P4', 'P9', 'P1'],
    file: 'core/mirror/request-order.ts',
    find: 'change: { read: true, change: true, lock: true },',
    replace: 'change: { read: true, change: false, lock: true },',
  },
  {
    name: 'a region is copied while the guest writes to it',
    breaks: ['P1', 'P4', 'P9'],
    file: 'core/mirror/request-order.ts',
    find: 'lock: { read: false, change: true, lock: true },',
    replace: 'lock: { read: false, change: false, lock: false },',
  },
  {
    name: 'data is written before its intent is durable',
    breaks: ['P9', 'P4'],
    file: 'datapath/replica-local/layer.ts',
    find: 'const intent = this.#intents.ensure(change.first, change.end)\n      if (intent',
    replace: 'const intent = undefined as Promise<void> | undefined\n      if (intent',
  },
  {
    name: 'intents are cleared although a change is under way',
    breaks: ['P9', 'P4'],
    file: 'datapath/mirror/volume-mirror.ts',
    find: 'if (state.runningCount > 0) {',
    replace: 'if (state.runningCount < 0) {',
  },
  {
    name: 'intents are cleared although a replica is away',
    breaks: ['P1', 'P9', 'P7'],
    file: 'datapath/mirror/volume-mirror.ts',
    find: 'const clearIntents = keeper.allInSync && reconciled()',
    replace: 'const clearIntents = reconciled()',
  },
  {
    name: 'a read is returned without asking whether promises still hold',
    breaks: ['P4', 'P1'],
    file: 'core/mirror/mirror-state.ts',
    find: "if (link.standing === 'in-sync' && now >= link.promiseUntil) return false",
    replace: '',
  },
  {
    name: 'a change is acknowledged without asking whether promises still hold',
    breaks: ['P3'],
    file: 'core/mirror/mirror-state.ts',
    find: 'if (this.#answered.size === 0 || !this.promisesHold(now)) return',
    replace: 'if (this.#answered.size === 0) return',
  },
  {
    name: 'a replica accepts a higher epoch although it owes a promise',
    breaks: ['P3', 'P4', 'P1'],
    file: 'core/mirror/replica-rights.ts',
    find: 'const remainingMs = this.#owedFor(request, now, renewedAt)',
    replace: 'const remainingMs = Math.min(0, this.#owedFor(request, now, renewedAt)) as Millis',
  },
  {
    name: 'a promise of an epoch before the last change of the membership is void',
    breaks: ['P4', 'P1', 'P3'],
    file: 'core/mirror/open-procedure.ts',
    find: 'const voidUpTo = owner === null || owner === options.host ? epoch - 1 : 0',
    replace:
      'const voidUpTo = owner === null || owner === options.host ? epoch - 1 : Math.max(state.epoch - 1, 0)',
  },
  {
    name: 'a process that has just started owes nothing',
    breaks: ['P4', 'P1', 'P3'],
    file: 'core/mirror/replica-rights.ts',
    find: 'if (holder === null) return (this.#graceUntil - now) as Millis',
    replace: 'if (holder === null) return 0 as Millis',
  },
  {
    name: 'a session goes on after a higher epoch was accepted',
    breaks: ['P3'],
    file: 'datapath/replica-local/replica-service.ts',
    find: "if (this.#rights.session === null) await this.#endSession('another epoch was accepted')",
    replace: '',
  },
  {
    name: 'a reservation that was overtaken is taken all the same',
    breaks: ['P3', 'P1', 'P4'],
    file: 'core/mirror/volume-change.ts',
    find: 'if (state.reserved.epoch !== epoch || state.reserved.host !== host) return null',
    replace: '',
  },
  {
    name: 'only the source is asked which regions may differ',
    breaks: ['P4', 'P9', 'P1'],
    file: 'datapath/mirror/reconciliation.ts',
    find: 'for (const link of relied) unreconciled.union(link.intents!)',
    replace: 'for (const link of relied) if (link.peer.local) unreconciled.union(link.intents!)',
  },
  {
    name: 'a region that may differ is read from any replica',
    breaks: ['P4', 'P1'],
    file: 'core/mirror/mirror-state.ts',
    find: 'let reconciled = true',
    replace: 'let reconciled = true as boolean\n    if (request.number > 0) this.#unreconciled = null',
  },
  {
    name: 'the source is chosen without asking who lost power',
    breaks: ['P1', 'P2', 'P4'],
    file: 'datapath/mirror/reconciliation.ts',
    find: 'const lossOf = (link: ReplicaLink): number => link.lostAt ?? -1',
    replace: 'const lossOf = (_: ReplicaLink): number => 0',
  },
  {
    name: 'a rebuilt replica counts before it has flushed',
    breaks: ['P1', 'P2', 'P7'],
    file: 'datapath/mirror/membership.ts',
    find: 'await link.flush()\n        session.check()\n        //',
    replace: '//',
  },
  {
    name: 'a rebuilt replica is not asked what it wrote itself',
    breaks: ['P9', 'P4', 'P7', 'P1'],
    file: 'datapath/mirror/membership.ts',
    find: 'missed.union(link.intents!)',
    replace: '',
  },
  {
    name: 'a replica is asked what it missed before it receives what is written',
    breaks: ['P1', 'P9', 'P4', 'P7'],
    file: 'datapath/mirror/membership.ts',
    find: 'link.rebuilding = true\n    this.#context.syncStandings()\n    state.connected(replica)\n    this.#context.carrier.drain()',
    replace: 'void Promise.resolve()',
  },
  {
    name: 'a change of the record whose answer was lost counts as not made',
    breaks: ['P1', 'P4', 'P9', 'P7'],
    file: 'core/mirror/record-keeper.ts',
    find: "case 'unknown':\n        uncertain = true\n        break",
    replace: "case 'unknown':\n        keeper.abandon()\n        return { kind: 'given-up', reason: '' }",
  },
  {
    name: 'a read is tried again with the buffer that a call which hangs has',
    breaks: ['P4'],
    file: 'datapath/mirror/request-carrier.ts',
    find: 'if (carried.sent) carried.data = Buffer.allocUnsafe(carried.data.length)',
    replace: '',
  },
  {
    name: 'a session is opened although calls of an earlier one have not come back',
    breaks: ['P3', 'P4', 'P1', 'P9'],
    file: 'datapath/replica-local/replica-service.ts',
    find: 'await this.replica.drained()',
    replace: 'await Promise.race([this.replica.drained(), Promise.resolve()])',
  },
  {
    name: 'durable writes are acknowledged without a sync',
    breaks: ['P2', 'P1'],
    file: 'datapath/replica-local/local-replica.ts',
    find: 'if (durable) await this.#layer.flush()',
    replace: '',
  },
  {
    name: 'what a dead process wrote and did not sync counts as durable',
    breaks: ['P1', 'P2', 'P9'],
    file: 'datapath/replica-local/layer.ts',
    find: '    await files.map.sync()\n',
    replace: '',
  },
  {
    name: 'an epoch is accepted before it is durable',
    breaks: ['P3'],
    file: 'datapath/replica-local/replica-service.ts',
    find: 'await this.replica.acceptEpoch(request.epoch, { rebuilding: !request.inSync })',
    replace: 'void this.replica.acceptEpoch(request.epoch, { rebuilding: !request.inSync })',
  },
  {
    name: 'a stale replica becomes in-sync without a copy',
    breaks: ['P7', 'P1'],
    file: 'datapath/mirror/membership.ts',
    find: 'plan.add(replica, missed)',
    replace: '',
  },
  {
    name: 'a replica that is being rebuilt is read',
    breaks: ['P7'],
    file: 'core/mirror/mirror-state.ts',
    find: 'if (!link.mayBeRead || !link.connected) continue',
    replace: 'if (!link.connected) continue',
  },
  {
    name: 'a discard is acknowledged and not sent',
    breaks: ['P1', 'P2', 'P4'],
    file: 'datapath/mirror/request-carrier.ts',
    find: 'else done = session.trim({ ...range, length })',
    replace: 'else done = Promise.resolve()',
  },
]
