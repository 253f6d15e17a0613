/** `slicenet doctor`: whether this machine can run a node or a devnet, and making it so. */
import { Option, type Command } from 'commander'
import {
  diagnose,
  diagnosisError,
  installPackages,
  type Diagnosis,
  DOCTOR_PURPOSES,
  type DoctorPurpose
} from '../daemon/doctor.ts'
import { examples, type CommandContext, type RunCommand } from './command.ts'
import type { Outcome, Style } from './output.ts'
import { formatTable, tame } from './table.ts'

interface DoctorOptions {
  readonly for: DoctorPurpose
  readonly install?: boolean
}

export function addDoctorCommand(root: Command, run: RunCommand): void {
  root
    .command('doctor')
    .description('check whether this machine can run a node or a devnet')
    .option('--install', 'install the Debian packages that are missing, then check again (root)')
    .addOption(
      new Option('--for <purpose>', 'what the machine is wanted for').choices(DOCTOR_PURPOSES).default('node')
    )
    .addHelpText('after', examples('slicenet doctor', 'slicenet doctor --install --for devnet'))
    .action((options: DoctorOptions) => run((context) => doctor(context, options)))
}

async function doctor(context: CommandContext, options: DoctorOptions): Promise<Outcome> {
  const { environment, services, signal, progress } = context
  const init = {
    purpose: options.for,
    ports: await services.listenPorts(environment),
    socketPath: environment.socketPath,
    signal
  }
  let diagnosis = await diagnose(services.doctor, init)
  const installed = options.install === true ? diagnosis.packages : []
  if (installed.length > 0) {
    for (const { name, why } of installed) progress(`installing ${name}: ${why.join('; ')}`)
    const onOutput = (text: string): void => void context.terminal.stderr.write(text)
    await installPackages(
      services.doctor,
      installed.map(({ name }) => name),
      { onOutput, signal }
    )
    diagnosis = await diagnose(services.doctor, init)
  }
  const error = diagnosisError(diagnosis)
  return {
    document: { ...diagnosis, installed: installed.map(({ name }) => name) },
    text: (style) => checkTable(diagnosis, style),
    ...(error === undefined ? {} : { error })
  }
}

function checkTable({ checks }: Diagnosis, style: Style): string {
  const rows = checks.map(({ name, status, detail, hint }) => [
    name,
    status,
    hint === undefined ? detail : `${detail}; ${hint}`
  ])
  const warnings = checks.filter(({ status }) => status === 'warning')
  const said = warnings.map(
    ({ name, detail }) => `\n${style.bad('warning:')} ${tame(`${name}: ${detail}`)}\n`
  )
  return [formatTable(['CHECK', 'STATUS', 'DETAIL'], rows, style), ...said].join('')
}
