import assert from 'node:assert/strict'
import { type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { ReplySender } from '../../../../datapath/nbd-server/reply-sender.ts'

const ticket = { cookieHigh: 0, cookieLow: 1, cost: 7 }
/** Far longer than a turn of the event loop, in milliseconds. */
const STOPPED_MS = 40

/** The process is stopped: no callback runs, and time goes on. */
function stopped(): void {
  const until = performance.now() + STOPPED_MS
  while (performance.now() < until);
}

class Connection {
  readonly stream = new PassThrough()
  readonly released: number[] = []
  mayAnswer = false
  asked = 0
  readonly sender = new ReplySender(
    this.stream as unknown as Socket,
    false,
    cost => this.released.push(cost),
    () => {
      this.asked++
      return this.mayAnswer
    }
  )

  get written(): boolean {
    return this.stream.readableLength > 0
  }

  async whenAsked(times: number): Promise<void> {
    while (this.asked < times) await new Promise(resolve => setImmediate(resolve))
  }
}

describe('a reply that is held up on its way to the client', () => {
  it('leaves without a question when it is not held up', () => {
    const connection = new Connection()
    connection.sender.success(ticket)
    connection.sender.flush()
    assert.equal(connection.asked, 0)
    assert.equal(connection.written, true)
  })

  it('does not leave while it must not be told, and does when it may', async () => {
    const connection = new Connection()
    connection.sender.data(ticket, 0, new Uint8Array(512))
    stopped()
    await connection.whenAsked(2)
    assert.equal(connection.written, false)
    connection.sender.success(ticket)
    connection.mayAnswer = true
    await connection.whenAsked(3)
    while (!connection.written) await new Promise(resolve => setImmediate(resolve))
    assert.equal(connection.stream.readableLength, 16 + 512 + 16)
    assert.deepEqual(connection.released, [14])
  })

  it('is given up with its connection', async () => {
    const connection = new Connection()
    connection.sender.success(ticket)
    stopped()
    await connection.whenAsked(1)
    connection.stream.destroy()
    while (connection.released.length === 0) await new Promise(resolve => setImmediate(resolve))
    assert.equal(connection.asked, 1)
  })
})
