/**
 * What a replica does with messages about the right to change it that come late or twice. Each of them was sent by
 * somebody who had that right once. Numbers of sessions begin anew with each epoch, so a late message may well name
 * the number of a session that is open.
 */
import assert from 'node:assert/strict'
import {
  type AcceptAnswer,
  type EpochAnswer,
  type ProcessIdentity,
  type ReplicaAddress,
  type SessionName,
} from '../../../core/mirror/messages.ts'
import { PromiseGiver } from '../../../core/mirror/promise.ts'
import { DEFAULT_TIMING } from '../../../core/mirror/timing.ts'
import {
  BLOCK_BYTES,
  type ByteOffset,
  epoch,
  millis,
  REGION_BYTES,
  type RegionIndex,
  type Sequence,
  sessionNumber,
} from '../../../core/units.ts'
import { digestsOf } from '../../../datapath/replica-local/block-digests.ts'
import { ReplicaService } from '../../../datapath/replica-local/replica-service.ts'
import { type ReplicaSession } from '../../../datapath/mirror/replica-peer.ts'
import { ReplicaHost } from '../../support/replica-on-simulated-disk.ts'
import { HOST_A, HOST_B, HOST_C, processOf } from '../core/mirror/samples.ts'

const REGIONS = 8
const [A, B, C] = [HOST_A, HOST_B, HOST_C].map(host => processOf(host)) as [
  ProcessIdentity,
  ProcessIdentity,
  ProcessIdentity,
]
const HERE = processOf('the host of the replica' as typeof HOST_A)

describe('a message to a replica that comes late or twice', () => {
  let host: ReplicaHost
  let service: ReplicaService
  let now: number
  let promises: PromiseGiver

  /** The process that the replica is in begins now. */
  async function open(): Promise<void> {
    promises = new PromiseGiver(DEFAULT_TIMING.promiseTimeMs)
    service = new ReplicaService(await host.open(), {
      identity: HERE,
      clock: { now: () => millis(now), after: () => ({ cancel: () => undefined }) },
      timing: DEFAULT_TIMING,
      promises,
      startedAt: millis(now),
      isServing: () => false,
    })
  }

  beforeEach(async () => {
    now = 1_000_000
    host = new ReplicaHost(1, REGIONS * REGION_BYTES)
    await host.start()
    await host.replica.close()
    await open()
    // Whatever a process before this one promised is over.
    now += DEFAULT_TIMING.promiseTimeMs
  })
  afterEach(async () => service.close())

  const address = (): ReplicaAddress => ({ ...host.spec, sr: 'the sr' as ReplicaAddress['sr'] })
  const name = (at: number, number: number): SessionName => ({
    address: address(),
    epoch: epoch(at),
    session: sessionNumber(number),
  })

  const accept = async (
    asker: ProcessIdentity,
    at: number,
    { inSync = true, voidUpTo = 0 } = {}
  ): Promise<AcceptAnswer> =>
    service.accept({
      address: address(),
      epoch: epoch(at),
      asker,
      purpose: 'guest',
      inSync,
      voidUpTo: epoch(voidUpTo),
    })

  const confirm = async (asker: ProcessIdentity, at: number): Promise<EpochAnswer> =>
    service.confirm({ address: address(), epoch: epoch(at), asker, purpose: 'guest' })

  const raise = async (
    asker: ProcessIdentity,
    from: number,
    to: number,
    inSync = true
  ): Promise<EpochAnswer> =>
    service.raise({ address: address(), from: epoch(from), to: epoch(to), asker, inSync })

  const clear = async (
    at: number,
    session: number,
    { upTo = 100, first = 0, end = REGIONS, reconciled = false } = {}
  ): Promise<void> =>
    service.clear({
      name: name(at, session),
      upTo: upTo as Sequence,
      regions: [{ first, end }],
      reconciled,
    })

  const finish = async (asker: ProcessIdentity, at: number, session: number): Promise<void> =>
    service.finish({ name: name(at, session), asker, clearIntents: true })

  /** A process opens the volume as far as a replica takes part, with a first session. */
  async function openBy(asker: ProcessIdentity, at: number): Promise<ReplicaSession> {
    const accepted = await accept(asker, at, { voidUpTo: at - 1 })
    assert.equal(accepted.kind, 'accepted')
    assert.equal((await confirm(asker, at)).kind, 'ok')
    return service.openSession(name(at, 1))
  }

  /** Changes a block of a region and makes it durable. */
  async function write(session: ReplicaSession, sequence: number, region: number): Promise<void> {
    await session.write({
      offset: (region * REGION_BYTES) as ByteOffset,
      data: Buffer.alloc(BLOCK_BYTES, sequence),
      durable: true,
      sequence: sequence as Sequence,
    })
  }

  const intents = (): number[] => [...service.replica.intents]

  const assertRefused = async (answer: Promise<EpochAnswer>, accepted: number): Promise<void> =>
    assert.deepEqual(await answer, { kind: 'refused', identity: HERE, accepted })

  /** Whom the replica says that it owes a promise to, when a third process asks for a higher epoch. */
  async function promisedTo(asker: ProcessIdentity, at: number): Promise<string | null> {
    const answer = await accept(asker, at)
    return answer.kind === 'promised' ? answer.holder : null
  }

  /** Power was cut while the replica had un-flushed writes. */
  async function losePower(): Promise<void> {
    host.powerCut()
    await open()
    now += DEFAULT_TIMING.promiseTimeMs
    assert.notEqual(service.replica.lostAt, null)
  }

  describe('confirm', () => {
    it('of an earlier primary is refused, and gives it no promise', async () => {
      await openBy(A, 6)
      await accept(B, 7, { voidUpTo: 6 })
      await assertRefused(confirm(A, 6), 7)
      // B has not confirmed: nothing is owed to anybody.
      assert.equal(await promisedTo(C, 8), null)
    })

    it('of an epoch that could not be stored for lack of space is refused, and gives no right to a session', async () => {
      await openBy(A, 6)
      host.disk.capacity = host.disk.used
      // More than the maps that were made with the volume have room for, so that the replica has to grow first.
      const size = (40_000 * REGION_BYTES) as ReplicaAddress['size']
      const grown = { ...address(), size }
      const request = { address: grown, epoch: epoch(7), asker: B, purpose: 'guest', inSync: true } as const
      const refused = await service.accept({ ...request, voidUpTo: epoch(6) })
      assert.equal(refused.kind, 'failed')
      assert.equal(service.replica.acceptedEpoch, 6)
      await assertRefused(confirm(B, 7), 6)
      await assert.rejects(service.openSession(name(7, 1)), { code: 'SESSION_STALE' })
      host.disk.capacity = Infinity
      assert.equal((await service.accept({ ...request, voidUpTo: epoch(6) })).kind, 'accepted')
      assert.equal((await confirm(B, 7)).kind, 'ok')
    })

    it('of an earlier primary leaves the promise with the one that has it now', async () => {
      await openBy(A, 6)
      const session = await openBy(B, 7)
      now += 1_000
      await assertRefused(confirm(A, 6), 7)
      assert.equal(await promisedTo(C, 8), HOST_B)
      await write(session, 1, 0)
    })

    it('of an earlier opening of the same process is refused, and gives no promise for the later one', async () => {
      await openBy(A, 6)
      await finish(A, 6, 1)
      await accept(A, 7, { voidUpTo: 6 })
      await assertRefused(confirm(A, 6), 7)
      assert.equal(await promisedTo(C, 8), null)
    })

    it('twice counts from the second one, and disturbs no session', async () => {
      const session = await openBy(A, 6)
      now += DEFAULT_TIMING.promiseTimeMs - 1
      assert.equal((await confirm(A, 6)).kind, 'ok')
      now += DEFAULT_TIMING.promiseTimeMs - 1
      assert.equal(await promisedTo(C, 7), HOST_A)
      now += 1
      await write(session, 1, 0)
      assert.equal(await promisedTo(C, 7), null)
    })

    it('after the close binds nobody who opens the volume by its record', async () => {
      await openBy(A, 6)
      await finish(A, 6, 1)
      assert.equal((await confirm(A, 6)).kind, 'ok')
      // The record has no primary: promises up to the reserved epoch are void.
      assert.equal((await accept(B, 7, { voidUpTo: 6 })).kind, 'accepted')
    })

    it('by another process of the same host is refused', async () => {
      await openBy(A, 6)
      await assertRefused(confirm(processOf(HOST_A, 2), 6), 6)
      assert.equal(await promisedTo(C, 7), HOST_A)
    })
  })

  describe('raise', () => {
    it('of an earlier primary is refused, and takes nothing from the one that has the replica now', async () => {
      await openBy(A, 6)
      const session = await openBy(B, 8)
      await assertRefused(raise(A, 6, 7), 8)
      // Also to an epoch above: A changed the record before it lost it.
      await assertRefused(raise(A, 6, 9), 8)
      assert.equal(service.replica.acceptedEpoch, 8)
      await write(session, 1, 0)
      assert.equal(await promisedTo(C, 9), HOST_B)
    })

    it('of the holder to an epoch below is refused, and the stored one stays', async () => {
      await openBy(A, 6)
      assert.equal((await raise(A, 6, 9)).kind, 'ok')
      await assertRefused(raise(A, 6, 7), 9)
      assert.equal(service.replica.acceptedEpoch, 9)
    })

    it('twice is answered twice, and the session goes on', async () => {
      const session = await openBy(A, 6)
      await write(session, 1, 0)
      for (let time = 0; time < 2; time++) assert.equal((await raise(A, 6, 7)).kind, 'ok')
      await write(session, 2, 1)
      assert.equal(service.replica.acceptedEpoch, 7)
      assert.equal(await promisedTo(C, 8), HOST_A)
    })

    it('says nothing of what a replica has lost, whenever it comes', async () => {
      await openBy(A, 6)
      await losePower()
      // Taken out at 8, while the message of 7 was on its way.
      await accept(A, 8, { inSync: false })
      await assertRefused(raise(A, 6, 7), 8)
      assert.equal((await raise(A, 8, 9)).kind, 'ok')
      assert.notEqual(service.replica.lostAt, null)
    })
  })

  describe('clear', () => {
    it('of an earlier session is refused, and no intent is lost', async () => {
      await write(await openBy(A, 6), 1, 0)
      const session = await service.openSession(name(6, 2))
      await write(session, 1, 3)
      await assert.rejects(clear(6, 1), { code: 'SESSION_STALE' })
      assert.deepEqual(intents(), [0, 3])
    })

    it('of an earlier epoch is refused, also when a session of the same number is open', async () => {
      await write(await openBy(A, 6), 1, 0)
      await write(await openBy(B, 7), 1, 3)
      await assert.rejects(clear(6, 1), { code: 'EPOCH_STALE' })
      assert.deepEqual(intents(), [0, 3])
    })

    it('after an epoch was accepted that has no session yet is refused', async () => {
      await write(await openBy(A, 6), 1, 0)
      await accept(B, 7, { voidUpTo: 6 })
      await assert.rejects(clear(6, 1), { code: 'EPOCH_STALE' })
      assert.deepEqual(intents(), [0])
    })

    it('after the close is refused', async () => {
      await write(await openBy(A, 6), 1, 0)
      await service.finish({ name: name(6, 1), asker: A, clearIntents: false })
      await assert.rejects(clear(6, 1), { code: 'SESSION_STALE' })
      assert.deepEqual(intents(), [0])
    })

    it('that was sent before the epoch was raised is carried out: the session goes on', async () => {
      const session = await openBy(A, 6)
      await write(session, 1, 0)
      await raise(A, 6, 7)
      await write(session, 2, 3)
      await clear(6, 1, { upTo: 1 })
      assert.deepEqual(intents(), [3])
    })

    it('keeps the intents of regions that later changes touched', async () => {
      const session = await openBy(A, 6)
      await write(session, 1, 0)
      await write(session, 2, 3)
      await write(session, 3, 0)
      await clear(6, 1, { upTo: 2 })
      assert.deepEqual(intents(), [0])
    })

    it('twice clears nothing that came in between', async () => {
      const session = await openBy(A, 6)
      await write(session, 1, 0)
      await write(session, 2, 3)
      await clear(6, 1, { upTo: 2 })
      assert.deepEqual(intents(), [])
      await write(session, 3, 3)
      await clear(6, 1, { upTo: 2 })
      assert.deepEqual(intents(), [3])
    })

    it('does not call a replica whole that has lost writes since', async () => {
      await openBy(A, 6)
      await losePower()
      await openBy(A, 7)
      await assert.rejects(clear(6, 1, { reconciled: true }), { code: 'EPOCH_STALE' })
      assert.notEqual(service.replica.lostAt, null)
    })
  })

  describe('finish', () => {
    it('of an earlier session is refused: intents and the promise stay', async () => {
      await write(await openBy(A, 6), 1, 0)
      const session = await service.openSession(name(6, 2))
      await assert.rejects(finish(A, 6, 1), { code: 'SESSION_STALE' })
      assert.deepEqual(intents(), [0])
      await write(session, 1, 3)
      assert.equal(await promisedTo(C, 7), HOST_A)
    })

    it('of an earlier epoch is refused, also when a session of the same number is open', async () => {
      await write(await openBy(A, 6), 1, 0)
      const session = await openBy(B, 7)
      await assert.rejects(finish(A, 6, 1), { code: 'EPOCH_STALE' })
      assert.deepEqual(intents(), [0])
      await write(session, 1, 3)
      assert.equal(await promisedTo(C, 8), HOST_B)
    })

    it('twice is refused the second time, which changes nothing', async () => {
      await write(await openBy(A, 6), 1, 0)
      await finish(A, 6, 1)
      await assert.rejects(finish(A, 6, 1), { code: 'SESSION_STALE' })
      assert.deepEqual(intents(), [])
      await write(await openBy(B, 7), 1, 3)
      await assert.rejects(finish(A, 6, 1), { code: 'EPOCH_STALE' })
      assert.deepEqual(intents(), [3])
    })
  })

  describe('request for a session', () => {
    it('of an earlier epoch or number is refused, and the open one goes on', async () => {
      await openBy(A, 6)
      await openBy(B, 7)
      const session = await service.openSession(name(7, 2))
      await assert.rejects(service.openSession(name(6, 3)), { code: 'EPOCH_STALE' })
      await assert.rejects(service.openSession(name(7, 1)), { code: 'SESSION_STALE' })
      await assert.rejects(service.openSession(name(7, 2)), { code: 'SESSION_STALE' })
      await write(session, 1, 0)
    })

    it('that was meant for the process before this one is refused: it may have lost what that one had', async () => {
      await write(await openBy(A, 6), 1, 0)
      await losePower()
      await assert.rejects(service.openSession(name(6, 2)), { code: 'SESSION_STALE' })
      const answer = await confirm(A, 6)
      assert.notEqual(answer.kind === 'ok' ? answer.lostAt : null, null)
      await write(await service.openSession(name(6, 3)), 1, 0)
    })

    it('after the close is refused', async () => {
      await openBy(A, 6)
      await finish(A, 6, 1)
      await assert.rejects(service.openSession(name(6, 2)), { code: 'SESSION_STALE' })
    })
  })

  describe('digests', () => {
    const digests = async (at: number, session: number, region = 0): Promise<Uint8Array | null> =>
      service.digests(name(at, session), region as RegionIndex)

    it('are those of what the session has written', async () => {
      const session = await openBy(A, 2)
      await write(session, 1, 3)
      const region = Buffer.alloc(REGION_BYTES)
      assert.deepEqual(await digests(2, 1, 2), digestsOf(region))
      region.fill(1, 0, BLOCK_BYTES)
      assert.deepEqual(await digests(2, 1, 3), digestsOf(region))
      assert.equal((await digests(2, 1, REGIONS))?.length, 0)
      await assert.rejects(digests(2, 1, REGIONS + 1), { code: 'OUT_OF_RANGE' })
      await assert.rejects(digests(2, 1, Number.MAX_SAFE_INTEGER), { code: 'OUT_OF_RANGE' })
    })

    it('are not told to a session that is over, also when it ends meanwhile', async () => {
      await openBy(A, 2)
      const asked = digests(2, 1)
      const session = openBy(B, 3)
      await assert.rejects(asked, { code: 'EPOCH_STALE' })
      await session
      await assert.rejects(digests(2, 1), { code: 'EPOCH_STALE' })
      await digests(3, 1)
    })
  })
})
