import { type Command, Option } from 'commander'
import { Console } from '../console.ts'
import { type HostControl, type HostStatus } from '../lab/host-control.ts'
import { labLinks } from '../lab/lab-links.ts'
import { labDown, labHost, labStatus, labUp } from '../lab/lab.ts'
import { programsDirectory } from '../../daemon/supervision/programs.ts'
import { type LabOptions, wholeNumber, withLab } from './common.ts'
import { addLabLinkCommands, showLinks } from './lab-links.ts'

interface HostActionOptions {
  readonly process?: string
}

export function addLabCommands(program: Command): void {
  const lab = program
    .command('lab')
    .description('a whole pool on one machine, for newcomers, tests and drills')
  addUp(lab)
  addHostAction(lab, 'start', 'start whatever of a host does not run', control => control.start())
  addProgramAction(
    lab,
    'kill',
    'end all of a host at once (SIGKILL), as a power cut does',
    (control, program) => control.kill(program)
  )
  addHostAction(lab, 'shutdown', 'end all of a host in order (SIGTERM)', async control => {
    const killed = await control.shutdown()
    return killed.length === 0 ? '' : `, but ${killed.join(', ')} had to be killed`
  })
  addProgramAction(
    lab,
    'pause',
    'stop all of a host where it is (SIGSTOP), as a hang does',
    (control, program) => control.pause(program)
  )
  addProgramAction(lab, 'resume', 'let a paused host go on (SIGCONT)', (control, program) =>
    control.resume(program)
  )
  addLabLinkCommands(lab)
  addStatus(lab)
  addDown(lab)
}

function addUp(lab: Command): void {
  withLab(lab.command('up'))
    .description('make a lab, or start what does not run of one; returns when all is up')
    .option('--hosts <number>', 'how many hosts', wholeNumber(1, 20), 3)
    .option('--datapaths <number>', 'datapath processes per host', wholeNumber(1, 16), 2)
    .option('--programs <directory>', 'programs to run instead of those of this build')
    .option('--netns', 'give every host a network of its own, with links to cut and to shape (as root)')
    .addOption(
      new Option('--coordinator <kind>', 'what decides: a file that all hosts open, or etcd')
        .choices(['embedded', 'etcd'] as const)
        .default('embedded')
    )
    .option(
      '--tls',
      'let hosts speak only with certificates, once there is an SR (with --netns or etcd always)'
    )
    .option('--witness', 'one host more, w1, which holds no data and may decide with the others')
    .option(
      '--power-cuts <hosts>',
      'hosts that lose at their end what they have not synced: h1,h3 or all',
      (text: string) => (text === 'all' ? 'all' : text.split(','))
    )
    .option(
      '--disk-size <MiB>',
      'give every host a file system of its own of this size (as root)',
      wholeNumber(64, 1_000_000)
    )
    .option('--bare', 'make the hosts, and start nothing in them')
    .action(
      async (
        options: LabOptions & {
          readonly hosts: number
          readonly datapaths: number
          readonly programs?: string
          readonly netns?: true
          readonly coordinator: 'embedded' | 'etcd'
          readonly tls?: true
          readonly witness?: true
          readonly powerCuts?: 'all' | string[]
          readonly diskSize?: number
          readonly bare?: true
        }
      ) => {
        const out = new Console(options.json === true)
        const { hosts, netns, bare, witness, diskSize } = options
        const all = `${hosts} hosts${witness === true ? ' and a witness' : ''}`
        out.line(`${bare === true ? 'Making' : 'Starting'} ${all} in ${options.dir} ...`)
        const wanted = {
          ...options,
          programs: options.programs ?? programsDirectory(),
          ...(diskSize === undefined ? {} : { diskBytes: diskSize * 1024 * 1024 }),
        }
        const report = await labUp(options.dir, wanted, text => out.line(`  ${text}`))
        out.result(report)
        const [first] = report.hosts
        out.line()
        if (netns === true) {
          out.line(`Run in a host:           xosan lab exec --dir ${options.dir} h1 -- COMMAND`)
        }
        out.line(`Entry scripts of a host: ${first?.pluginRoot ?? ''}`)
        out.line(`Ask a host:              xosan status --socket ${first?.controlSocket ?? ''}`)
        out.line(`End the lab:             xosan lab down --dir ${options.dir}`)
      }
    )
}

/** An action on all of a host, or on one of its programs. */
function addProgramAction(
  lab: Command,
  name: string,
  description: string,
  action: (control: HostControl, program: string | undefined) => Promise<void>
): void {
  addHostAction(lab, name, description, (control, { process }) => action(control, process)).option(
    '--process <name>',
    'only this one of its programs, as `lab status` names them'
  )
}

/** @param action returns a remark about how it went, if there is one */
function addHostAction(
  lab: Command,
  name: string,
  description: string,
  action: (control: HostControl, options: HostActionOptions) => Promise<string | undefined> | Promise<void>
): Command {
  return withLab(lab.command(name))
    .description(description)
    .argument('<host>', 'name of the host: h1, h2, ... or w1, the witness')
    .action(async (host: string, options: LabOptions & HostActionOptions) => {
      const out = new Console(options.json === true)
      const control = await labHost(options.dir, host)
      const startedAt = performance.now()
      const remark = (await action(control, options)) ?? ''
      const status = await control.status()
      out.result(status)
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
      out.line(`${host} is ${status.condition} (${seconds} s)${remark}`)
    })
}

function addStatus(lab: Command): void {
  withLab(lab.command('status'))
    .description('what runs on every host, and how the links are')
    .action(async (options: LabOptions) => {
      const out = new Console(options.json === true)
      const hosts = await labStatus(options.dir)
      const links = await labLinks(options.dir)
      out.result({ hosts, links })
      const rows = hosts.flatMap(host => host.processes.map(process => ({ host, process })))
      out.table<{ host: HostStatus; process: HostStatus['processes'][number] }>(rows, [
        { title: 'HOST', value: ({ host }) => host.name },
        { title: 'PROCESS', value: ({ process }) => process.name },
        { title: 'STATE', value: ({ process }) => process.condition },
        { title: 'PID', value: ({ process }) => String(process.pid ?? '-'), align: 'right' },
        { title: 'RESTARTS', value: ({ process }) => String(process.restarts ?? '-'), align: 'right' },
      ])
      if (links.length > 0) {
        out.line()
        showLinks(out, links)
      }
    })
}

function addDown(lab: Command): void {
  withLab(lab.command('down'))
    .description('end every process of the lab and remove what `lab up` made')
    .option('--keep', 'keep the data, so that `lab up` goes on with it')
    .action(async (options: LabOptions & { readonly keep?: boolean }) => {
      const out = new Console(options.json === true)
      await labDown(options.dir, options.keep === true, text => out.line(text))
      out.result({ directory: options.dir, kept: options.keep === true })
    })
}
