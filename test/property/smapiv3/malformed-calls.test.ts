import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import fc from 'fast-check'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { controlApi } from '../../../rpc/control-api.ts'
import { SmapiPool, type PoolHost } from '../../support/smapi-pool.ts'
import { smapiCalls } from '../../../volume/smapi.ts'

/** Names that make a call change something even with nonsense in its other parameters are part of the game. */
const NAMES = [
  ...Object.keys(smapiCalls.volume),
  ...Object.keys(smapiCalls.datapath),
  'Volume.snapshot',
  '',
  '__proto__',
]

const PARAMETERS = [
  'sr',
  'key',
  'uuid',
  'configuration',
  'name',
  'description',
  'size',
  'sharable',
  'uri',
  'domain',
  'k',
  'v',
  'new_size',
]

describe('malformed calls', function () {
  this.timeout(120_000)
  let pool: SmapiPool
  let host: PoolHost
  let client: RpcClient
  const sr = randomUUID()

  before(async () => {
    pool = await SmapiPool.up(1)
    host = pool.hosts[0]!
    await host.call('SR.create', { uuid: sr, configuration: { copies: '1' }, name: 'n', description: '' })
    client = new RpcClient({ address: host.controlSocket, clock: createNodeClock() })
  })

  after(async () => {
    client.close()
    await pool.down()
  })

  const residentBytes = async () => {
    const status = await readFile(`/proc/${host.pid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)![1]) * 1024
  }

  const weirdValue = fc.oneof(
    fc.anything({ withBigInt: false, withDate: false, withNullPrototype: false }),
    fc.constantFrom(
      sr,
      `xosan://${sr}/${randomUUID()}`,
      'xosan://../..',
      '../../etc',
      '\u0000',
      '9'.repeat(400),
      -1,
      1e300,
      null
    )
  )
  const json = fc.oneof(
    fc
      .dictionary(fc.constantFrom(...PARAMETERS, '__proto__', 'constructor'), weirdValue)
      .map(value => JSON.stringify(value)),
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.json(),
    fc.constant('['.repeat(5000))
  )
  const call = fc.record({
    plugin: fc.constantFrom('volume' as const, 'datapath' as const),
    // SR.destroy would end the test's own SR, should the dice hit its id.
    name: fc.constantFrom(...NAMES.filter(name => name !== 'SR.destroy' && name !== 'SR.create')),
    arguments: fc.oneof(
      fc.constant(['--json']),
      fc.array(fc.oneof(fc.string(), fc.constantFrom(sr, '--configuration', '--sharable')), { maxLength: 8 })
    ),
    stdin: json,
  })

  it('are each answered, with nothing but errors that xapi can read, and xosand goes on', async () => {
    const thousand = async () => {
      await fc.assert(
        fc.asyncProperty(call, async params => {
          const [exit, value] = await client.call('smapi.call', params, controlApi['smapi.call'].result, {
            deadlineMs: 20_000,
          })
          if (exit === 0) return
          const error = value as {
            code: string
            params: string[]
            backtrace: { error: string; files: string[]; lines: number[] }
          }
          assert.deepEqual(Object.keys(error), ['code', 'params', 'backtrace'])
          assert.match(error.code, /^SR_BACKEND_FAILURE_\d+$/)
          assert.ok(error.params.every(param => typeof param === 'string'))
          assert.ok(!error.backtrace.error.startsWith('INTERNAL'), error.backtrace.error)
        }),
        { numRuns: 1000 }
      )
      return residentBytes()
    }
    await thousand()
    const first = await thousand()
    const second = await thousand()
    assert.ok(second <= first * 1.05 + 1024 * 1024, `resident memory grew from ${first} to ${second} bytes`)
    assert.equal((await host.call<{ sr: string }>('SR.stat', { sr })).sr, sr)
  })

  it('that break the protocol lose their connection and disturb no other', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.uint8Array({ minLength: 1, maxLength: 500 }),
          fc.json().map(text => Buffer.from(text))
        ),
        async bytes => {
          await new Promise<void>(resolve => {
            const socket = connect(host.controlSocket, () =>
              socket.end(Buffer.concat([Buffer.from(bytes), Buffer.from('\n')]))
            )
            socket.on('error', () => undefined)
            socket.on('close', () => resolve())
            socket.resume()
          })
        }
      ),
      { numRuns: 300 }
    )
    const { pid } = await client.call('status', {}, controlApi.status.result, { deadlineMs: 10_000 })
    assert.equal(pid, host.pid)
  })
})
