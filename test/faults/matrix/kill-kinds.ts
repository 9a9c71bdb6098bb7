/** What the kill matrix kills: each kind of process and each kind of host, and what that means to the guest. */
import { type HostControl } from '../../../cli/lab/host-control.ts'
import { type ProcessHandle } from '../../../daemon/supervision/process-handle.ts'
import { type Roles } from '../../support/test-lab.ts'

/** A part of a host: one program by name, the one that serves or does not serve the volume, or all of it. */
type Part = 'supervisor' | 'xosand' | 'serving datapath' | 'other datapath' | 'all'

export interface KillKind {
  readonly name: string
  readonly role: keyof Roles
  readonly part: Part
  /**
   * What the guest sees. `nothing`: no error, at most a wait. `gone`: its connection ends, and the volume is opened
   * on another host.
   */
  readonly guestSees: 'nothing' | 'gone'
}

export const KILL_KINDS: readonly KillKind[] = [
  { name: 'supervisor, primary', role: 'primary', part: 'supervisor', guestSees: 'nothing' },
  { name: 'supervisor, secondary', role: 'secondary', part: 'supervisor', guestSees: 'nothing' },
  { name: 'xosand, primary', role: 'primary', part: 'xosand', guestSees: 'nothing' },
  { name: 'xosand, secondary', role: 'secondary', part: 'xosand', guestSees: 'nothing' },
  { name: 'other datapath, primary', role: 'primary', part: 'other datapath', guestSees: 'nothing' },
  { name: 'serving datapath, secondary', role: 'secondary', part: 'serving datapath', guestSees: 'nothing' },
  { name: 'serving datapath, primary', role: 'primary', part: 'serving datapath', guestSees: 'gone' },
  { name: 'host without a replica', role: 'bystander', part: 'all', guestSees: 'nothing' },
  { name: 'host, secondary', role: 'secondary', part: 'all', guestSees: 'nothing' },
  { name: 'host, primary', role: 'primary', part: 'all', guestSees: 'gone' },
]

/**
 * The processes that a kind names, the supervisor first.
 *
 * @param serving index of the datapath process that the volume's key selects on every host
 */
export async function processesOf(
  part: Part,
  control: HostControl,
  serving: number
): Promise<readonly ProcessHandle[]> {
  if (part === 'all') return await control.processes()
  const named = await control.named()
  const names = {
    supervisor: 'supervisor',
    xosand: 'xosand',
    'serving datapath': `datapath-${serving}`,
    'other datapath': `datapath-${1 - serving}`,
  }
  const handle = named.get(names[part])
  if (handle === undefined) throw new Error(`${control.host.name} has no ${names[part]} to kill`)
  return [handle]
}
