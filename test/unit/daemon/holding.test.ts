import assert from 'node:assert/strict'
import { type Wait } from '../../../core/mirror/waits.ts'
import { type HostId, millis, type ReplicaId } from '../../../core/units.ts'
import { sentenceOf } from '../../../daemon/rpc/holding.ts'

const [first, second] = ['uuid of h1' as HostId, 'uuid of h2' as HostId]
const place = { host: first, replica: 'a replica' as ReplicaId }
const nameOf = (host: HostId): string => host.replace('uuid of ', '')

describe('what a volume waits for, for people', () => {
  const expected: [Wait, RegExp][] = [
    [
      { for: 'replica', ...place, reason: 'no answer', othersLost: false },
      /on host h1 .*no answer.*start it/,
    ],
    [
      { for: 'replica', ...place, reason: 'no answer', othersLost: true },
      /have lost writes.*host h1.*no answer.*Start/,
    ],
    [{ for: 'promise', ...place }, /host h1.*network/],
    [
      { for: 'end-of-promise', ...place, holder: second, remainingMs: millis(1234) },
      /Host h1 .*for host h2, for 1\.2 s.*stop the VM/,
    ],
    [{ for: 'end-of-promise', ...place, holder: null, remainingMs: millis(1) }, /for the primary of before/],
    [{ for: 'coordinator', reason: 'it is away' }, /coordinator.*it is away.*`xosan status`/],
    [{ for: 'reconcile', regions: 7 }, /7 regions.*by itself/],
    [{ for: 'deactivation', primary: second }, /^Host h2 has taken the volume.*shut that VM down here/],
    [{ for: 'deactivation', primary: null }, /^Another host/],
  ]
  for (const [wait, sentence] of expected) {
    it(`names the hosts and what to do next (${JSON.stringify(wait)})`, () => {
      assert.match(sentenceOf(wait, nameOf), sentence)
      assert.doesNotMatch(sentenceOf(wait, nameOf), /uuid of|undefined|null/)
    })
  }
})
