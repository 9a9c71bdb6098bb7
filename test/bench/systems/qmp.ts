/** Enough of QEMU's monitor protocol (QMP) to start a job and to see that it is ready. */
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { z } from 'zod'

const messageSchema = z.looseObject({
  return: z.unknown().optional(),
  error: z.looseObject({ desc: z.string() }).optional(),
  event: z.string().optional(),
})

export class Qmp {
  readonly #socket: Socket
  readonly #answers: ((message: z.output<typeof messageSchema>) => void)[] = []
  readonly #events: string[] = []
  #heard: () => void = () => undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('error', () => undefined)
    createInterface({ input: socket }).on('line', line => {
      const message = messageSchema.parse(JSON.parse(line))
      if (message.event !== undefined) {
        this.#events.push(message.event)
        this.#heard()
      } else if ('return' in message || message.error !== undefined) {
        this.#answers.shift()?.(message)
      }
    })
  }

  static async open(path: string): Promise<Qmp> {
    const socket = connect(path)
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    const qmp = new Qmp(socket)
    await qmp.execute('qmp_capabilities', {})
    return qmp
  }

  /** @throws Error with QEMU's words */
  async execute(command: string, words: object): Promise<void> {
    const answer = new Promise<z.output<typeof messageSchema>>(resolve => this.#answers.push(resolve))
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: words })}\n`)
    const { error } = await answer
    if (error !== undefined) throw new Error(`${command}: ${error.desc}`)
  }

  /** Waits for an event, also one that has come before. @throws Error after a minute */
  async event(name: string): Promise<void> {
    const end = performance.now() + 60_000
    while (!this.#events.includes(name)) {
      if (performance.now() > end) throw new Error(`QEMU has not said ${name}`)
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, 1_000)
        this.#heard = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  close(): void {
    this.#socket.destroy()
  }
}
