import { randomBytes } from 'node:crypto'
import { XosanError } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type HostId, millis } from '../../core/units.ts'
import { Enrolment } from '../../trust/enrolment.ts'
import { createEnrolmentServer } from '../../trust/enrolment-server.ts'
import { type Member } from '../../trust/members.ts'
import { isSucceeding } from '../../trust/successor.ts'
import { ticketText } from '../../trust/ticket.ts'
import { type TrustDirectory } from '../../trust/trust-directory.ts'
import { type Config } from '../config.ts'
import { type Log } from '../log.ts'

interface EnrolmentDeskOptions {
  readonly config: Pick<Config, 'host' | 'ports'>
  readonly clock: Clock
  readonly log: Log
  /** Makes a host a member, durably, and tells who the members are then. */
  readonly admit: (member: Member) => Promise<readonly Member[]>
}

/** After the last ticket the port is open for as long as a host may take to come with it. */
const OPEN_MS = millis(60_000)

type Server = ReturnType<typeof createEnrolmentServer>

/** Gives out tickets on the host that holds the authority's key; the port where they are taken is open only while there are some. */
export class EnrolmentDesk {
  readonly #options: EnrolmentDeskOptions
  readonly #enrolment: Enrolment
  #server: Promise<Server> | null = null
  #timer: Timer | null = null

  constructor(options: EnrolmentDeskOptions) {
    this.#options = options
    this.#enrolment = new Enrolment({ clock: options.clock, randomBytes })
  }

  /**
   * Makes a ticket for a host.
   * @param address IP address to go into its certificate
   * @throws XosanError AUTHORITY_ELSEWHERE when this host has not got the authority's key
   */
  async ticket(directory: TrustDirectory, host: HostId, address: string): Promise<string> {
    const { config, clock } = this.#options
    const authority = await directory.authority()
    if (authority === null) throw new XosanError('AUTHORITY_ELSEWHERE', { host: config.host.name })
    if (isSucceeding((await directory.credentials())!.authoritiesPem)) {
      throw new XosanError('SUCCESSION_WAITS', {
        host: config.host.name,
        reason: 'nobody joins until it is done',
      })
    }
    await this.#open(directory)
    this.#timer?.cancel()
    this.#timer = clock.after(OPEN_MS, () => void this.close())
    const { sr, generation } = authority.scope
    const { id, secret } = this.#enrolment.invite({ host, addresses: [address] })
    const holder = { host: config.host.uuid, address: config.host.address, port: config.ports.enrolment }
    return ticketText({ sr, generation, host, holder, authorityPem: authority.certificatePem, id, secret })
  }

  /** Takes no more tickets until another is given out. */
  async close(): Promise<void> {
    this.#timer?.cancel()
    const server = this.#server
    this.#server = null
    await (await server?.catch(() => null))?.close()
  }

  async #open(directory: TrustDirectory): Promise<void> {
    this.#server ??= this.#listen(directory)
    try {
      await this.#server
    } catch (error) {
      this.#server = null
      throw error
    }
  }

  async #listen(directory: TrustDirectory): Promise<Server> {
    const { config, clock, log, admit } = this.#options
    const [authority, credentials] = [await directory.authority(), await directory.credentials()]
    if (authority === null || credentials === null) {
      throw new XosanError('AUTHORITY_ELSEWHERE', { host: config.host.name })
    }
    const server = createEnrolmentServer({
      authority,
      credentials,
      enrolment: this.#enrolment,
      admit,
      clock,
      log: event => log.warn('a host that would join was refused', { ...event }),
    })
    await server.listen(config.host.address, config.ports.enrolment)
    return server
  }
}
