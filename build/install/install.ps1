<#
Installs cortex-embed for one person, without administrator's rights:

    irm https://github.com/cortex-embed/cortex-embed/releases/latest/download/install.ps1 | iex
    & ([scriptblock]::Create((irm https://.../install.ps1))) -Slim -AddToPath

For Windows PowerShell 5.1 and PowerShell 7. It must never run or keep what did not match its
SHA-256, remove a file that it did not put there, or change PATH unless -AddToPath says so.
Everything is in functions and the last lines, in braces, call them: a download of this script that
was cut anywhere runs nothing. It throws and never exits: under `iex` that would close the window.
#>
param(
    [string]$Version = '',
    [switch]$Slim,
    [switch]$Onedir,
    [string]$Dir = '',
    [string]$BaseUrl = '',
    [switch]$AddToPath,
    [switch]$Uninstall,
    [switch]$Help
)

function Show-InstallHelp {
    Write-Output @'
Install cortex-embed for yourself: one file, no administrator.

    install.ps1 [-Version X] [-Slim | -Onedir] [-Dir DIR] [-BaseUrl URL] [-AddToPath]
    install.ps1 -Uninstall [-Dir DIR]

  -Version X    the release X, such as 0.1.0; otherwise the newest
  -Slim         without the model, which is then downloaded at the first start
  -Onedir       the directory form: quicker to start, and no temporary files
  -Dir DIR      where the program goes; otherwise %LOCALAPPDATA%\Programs\cortex-embed
  -BaseUrl URL  the directory that the assets are in; otherwise GitHub. https:// only, but for
                this machine itself (http://127.0.0.1:PORT). CORTEX_EMBED_BASE_URL does the same.
  -AddToPath    add DIR to your own PATH (not the machine's)
  -Uninstall    remove what this script put into DIR
'@
}

function Get-InstallTable {
# targets: begin (python -m release.manifests --scripts)
$Repository = 'cortex-embed/cortex-embed'
$SumsName = 'SHA256SUMS'
$Targets = @{
    'windows-x64' = @{
        Minimum = '10'
        full = 'cortex-embed-windows-x64.zip'
        slim = 'cortex-embed-slim-windows-x64.zip'
        onedir = 'cortex-embed-onedir-windows-x64.zip'
    }
}
# targets: end
    return @{ Repository = $Repository; SumsName = $SumsName; Targets = $Targets }
}

# The machine's own processor: a process under emulation is told another one.
function Get-MachineArchitecture {
    $key = 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Environment'
    return (Get-ItemProperty -Path $key -Name PROCESSOR_ARCHITECTURE).PROCESSOR_ARCHITECTURE
}

# One row of the table. Throws where there is no build for this machine.
function Select-InstallTarget($Table) {
    if ([Environment]::OSVersion.Platform -ne [PlatformID]::Win32NT) {
        throw 'This is not Windows: use install.sh.'
    }
    $known = ($Table.Targets.Keys | Sort-Object) -join ', '
    $system = [Environment]::OSVersion.Version
    $machine = Get-MachineArchitecture
    switch ($machine) {
        'AMD64' { $name = 'windows-x64' }
        'ARM64' { $name = 'windows-arm64' }
        default { throw "There is no build for Windows on $machine. There is: $known." }
    }
    if ($name -eq 'windows-arm64' -and -not $Table.Targets.ContainsKey($name)) {
        # Windows 11 is 10.0.22000 and later; Windows 10 on ARM runs no x64 programs.
        if ($system.Build -lt 22000) {
            throw "There is no build for Windows 10 on ARM64, and it cannot run the one for x64. There is: $known."
        }
        Write-Warning 'There is no build for ARM64: installing the one for x64, which Windows emulates (slower).'
        $name = 'windows-x64'
    }
    $row = $Table.Targets[$name]
    if ($system -lt [Version]"$($row.Minimum).0") {
        throw "Windows $system is too old: $name needs Windows $($row.Minimum) or newer."
    }
    return $row
}

# Where the assets are, without a slash at the end. Throws for what is not safe to install from.
function Resolve-InstallSource($Table, [string]$Version, [string]$BaseUrl) {
    if (-not $BaseUrl) { $BaseUrl = $env:CORTEX_EMBED_BASE_URL }
    if (-not $BaseUrl) {
        $releases = "https://github.com/$($Table.Repository)/releases"
        if ($Version) { return "$releases/download/v$Version" }
        return "$releases/latest/download"
    }
    $uri = $BaseUrl -as [Uri]
    if ($null -eq $uri -or -not $uri.IsAbsoluteUri -or $uri.Scheme -notin 'https', 'http') {
        throw "'$BaseUrl' is no address to download from. Give an https:// one."
    }
    if ($uri.Scheme -eq 'http' -and (-not $uri.IsLoopback -or $uri.UserInfo)) {
        throw "${BaseUrl}: http is not safe to install from. Give an https:// address."
    }
    return $BaseUrl.TrimEnd('/')
}

function Save-InstallFile([string]$Url, [string]$File, $Table) {
    # A progress bar makes Windows PowerShell's download many times slower.
    $ProgressPreference = 'SilentlyContinue'
    try {
        Invoke-WebRequest -UseBasicParsing -Uri $Url -OutFile $File
    }
    catch {
        $known = ($Table.Targets.Keys | Sort-Object) -join ', '
        throw "Could not download ${Url}: $($_.Exception.Message) Releases for Windows have builds for: $known. Nothing was installed."
    }
}

# The one SHA-256 that the sums give for $Asset.
function Get-ExpectedHash([string]$SumsFile, [string]$Asset, [string]$Url) {
    $lines = @(Get-Content -LiteralPath $SumsFile | ForEach-Object {
            $hash, $name = $_ -split '\s+', 2
            if ($name -ceq $Asset) { $hash }
        })
    if ($lines.Count -ne 1) {
        throw "$Url names $Asset $($lines.Count) times, not once. Nothing was installed."
    }
    if ($lines[0] -cnotmatch '^[0-9a-f]{64}$') {
        throw "${Url}: the line of $Asset has no SHA-256. Nothing was installed."
    }
    return $lines[0]
}

function Test-InstallHash([string]$File, [string]$Expected) {
    $got = (Get-FileHash -LiteralPath $File -Algorithm SHA256).Hash.ToLowerInvariant()
    if ($got -cne $Expected) {
        throw "$(Split-Path -Leaf $File) is not what the sums say: damaged, cut short, or tampered with.`n  expected $Expected`n  got      $got`nNothing was installed."
    }
    Write-Output "SHA-256 verified: $got"
}

# Throws for a member that is not part of such an archive.
function Test-InstallArchive([string]$File, [string]$Top, [bool]$IsOnedir) {
    Add-Type -AssemblyName System.IO.Compression.FileSystem
    $plain = 'cortex-embed.exe', 'LICENSE', 'THIRD-PARTY-LICENSES.txt', 'README.md'
    $archive = [IO.Compression.ZipFile]::OpenRead($File)
    try { $members = @($archive.Entries | ForEach-Object { $_.FullName.Replace('\', '/') }) }
    finally { $archive.Dispose() }
    foreach ($member in $members) {
        $inside = if ($member.StartsWith("$Top/")) { $member.Substring($Top.Length + 1) } else { $null }
        $isPart = $inside -eq '' -or $plain -ccontains $inside -or ($IsOnedir -and $inside -clike '_internal/*')
        if ($null -eq $inside -or -not $isPart -or ($member -split '/') -contains '..' -or $member.Contains(':')) {
            throw "$(Split-Path -Leaf $File) holds '$member', which is not part of it. Nothing was installed."
        }
    }
    if ($members -cnotcontains "$Top/cortex-embed.exe") {
        throw "$(Split-Path -Leaf $File) does not hold $Top/cortex-embed.exe. Nothing was installed."
    }
}

# The version that the new program states, having run.
function Get-ProgramVersion([string]$Exe, [string]$Wanted) {
    $said = & $Exe --version
    $match = [regex]::Match("$said", '^cortex-embed (\S+)$')
    if ($LASTEXITCODE -ne 0 -or -not $match.Success) {
        throw "The downloaded program does not run here (exit code $LASTEXITCODE): $said Nothing was installed."
    }
    $found = $match.Groups[1].Value
    if ($Wanted -and $found -ne $Wanted) {
        throw "Asked for $Wanted, and the address has $found. Nothing was installed."
    }
    return $found
}

# Throws for a directory that holds what is not ours.
function Test-InstallPlace([string]$Dir) {
    if (-not (Test-Path -LiteralPath $Dir)) { return }
    $isOurs = Test-Path -LiteralPath (Join-Path $Dir 'cortex-embed.receipt')
    if (-not $isOurs -and @(Get-ChildItem -LiteralPath $Dir -Force).Count -gt 0) {
        throw "$Dir is not empty, and was not made by this script. Name a directory that is not there yet: -Dir DIR"
    }
}

# Deletes what the receipt names, and nothing else.
function Remove-InstalledFile([string]$Dir) {
    $receipt = Join-Path $Dir 'cortex-embed.receipt'
    if (Test-Path -LiteralPath $receipt) {
        Get-Content -LiteralPath $receipt -Encoding UTF8 | Where-Object { $_ -clike 'file *' } | ForEach-Object {
            Remove-Item -LiteralPath (Join-Path $Dir $_.Substring(5)) -Force
        }
        Remove-Item -LiteralPath $receipt -Force
    }
    # The innermost first.
    $below = @(Get-ChildItem -LiteralPath $Dir -Recurse -Directory | Sort-Object { $_.FullName.Length } -Descending | ForEach-Object { $_.FullName })
    foreach ($directory in @($below + $Dir)) {
        if (@(Get-ChildItem -LiteralPath $directory -Force).Count -eq 0) { Remove-Item -LiteralPath $directory -Force }
    }
    if (Test-Path -LiteralPath $Dir) { Write-Warning "What this script did not put there is left in $Dir" }
}

# The old directory goes aside by a rename, and comes back if the new one cannot take its place.
function Move-IntoPlace([string]$Fresh, [string]$Dir) {
    $aside = $null
    if (Test-Path -LiteralPath $Dir) {
        $aside = "$Dir.old-$([Guid]::NewGuid().ToString('N').Substring(0, 8))"
        try { Move-Item -LiteralPath $Dir -Destination $aside }
        catch { throw "$Dir cannot be replaced while a server runs from it: stop it first. ($($_.Exception.Message))" }
    }
    try { Move-Item -LiteralPath $Fresh -Destination $Dir }
    catch {
        if ($aside) { Move-Item -LiteralPath $aside -Destination $Dir }
        throw
    }
    if ($aside) { Remove-InstalledFile $aside }
}

function Write-InstallReceipt([string]$Fresh, [string]$Installed, [string]$Asset, [bool]$OnPath) {
    $Fresh = (Get-Item -LiteralPath $Fresh).FullName
    $files = @(Get-ChildItem -LiteralPath $Fresh -Recurse -File -Force | ForEach-Object { 'file ' + $_.FullName.Substring($Fresh.Length + 1) })
    $lines = @("version $Installed", "asset $Asset") + $files
    if ($OnPath) { $lines += 'path' }
    Set-Content -LiteralPath (Join-Path $Fresh 'cortex-embed.receipt') -Value $lines -Encoding UTF8
}

# By the registry: [Environment] would write the value back with its %VARIABLES% expanded.
function Edit-UserPath([string]$Dir, [bool]$Add) {
    $key = [Microsoft.Win32.Registry]::CurrentUser.OpenSubKey('Environment', $true)
    try {
        $old = $key.GetValue('Path', '', [Microsoft.Win32.RegistryValueOptions]::DoNotExpandEnvironmentNames)
        $parts = @($old -split ';' | Where-Object { $_ -and $_ -ne $Dir })
        if ($Add) { $parts += $Dir }
        $key.SetValue('Path', ($parts -join ';'), [Microsoft.Win32.RegistryValueKind]::ExpandString)
    }
    finally { $key.Dispose() }
    # Tells the windows that are open of the change; the variable is not there before or after.
    [Environment]::SetEnvironmentVariable('CORTEX_EMBED_PATH_CHANGED', $null, 'User')
}

function Uninstall-CortexEmbed([string]$Dir) {
    $receipt = Join-Path $Dir 'cortex-embed.receipt'
    if (-not (Test-Path -LiteralPath $receipt)) {
        throw "Nothing in $Dir was put there by this script (no $receipt). Say where it is: -Dir DIR"
    }
    if ((Get-Content -LiteralPath $receipt) -contains 'path') { Edit-UserPath -Dir $Dir -Add $false }
    Remove-InstalledFile $Dir
    Write-Output "Removed cortex-embed from $Dir"
    Write-Output 'Downloaded models and services that you made of it are not touched.'
}

function Install-CortexEmbed {
    param([string]$Version, [switch]$Slim, [switch]$Onedir, [string]$Dir, [string]$BaseUrl, [switch]$AddToPath, [switch]$Uninstall, [switch]$Help)
    $ErrorActionPreference = 'Stop'
    Set-StrictMode -Version 2.0
    if ($Help) { Show-InstallHelp; return }
    if ($Slim -and $Onedir) { throw '-Slim and -Onedir are two different assets: choose one.' }
    $Version = $Version -replace '^v', ''
    if ($Version -notmatch '^[0-9A-Za-z.+-]*$') { throw "'$Version' is no version; one looks like 0.1.0." }
    if (-not $Dir) { $Dir = Join-Path $env:LOCALAPPDATA 'Programs\cortex-embed' }
    $Dir = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Dir).TrimEnd('\')
    if ($Uninstall) { Uninstall-CortexEmbed -Dir $Dir; return }

    $table = Get-InstallTable
    $form = if ($Slim) { 'slim' } elseif ($Onedir) { 'onedir' } else { 'full' }
    $asset = (Select-InstallTarget $table)[$form]
    $base = Resolve-InstallSource $table $Version $BaseUrl
    Test-InstallPlace $Dir
    # Windows PowerShell 5.1 offers TLS 1.0 by default on old systems.
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12

    $parent = Split-Path -Parent $Dir
    New-Item -ItemType Directory -Force -Path $parent | Out-Null
    # Beside the directory itself: on the same drive, so that the last step is a rename.
    $staging = Join-Path $parent ".cortex-embed-install-$([Guid]::NewGuid().ToString('N').Substring(0, 8))"
    New-Item -ItemType Directory -Path $staging | Out-Null
    try {
        Write-Output "Installing cortex-embed ($form) from $base"
        $sums = Join-Path $staging $table.SumsName
        $archive = Join-Path $staging $asset
        Save-InstallFile "$base/$($table.SumsName)" $sums $table
        $expected = Get-ExpectedHash $sums $asset "$base/$($table.SumsName)"
        Save-InstallFile "$base/$asset" $archive $table
        Test-InstallHash $archive $expected
        $top = [IO.Path]::GetFileNameWithoutExtension($asset)
        Test-InstallArchive $archive $top ([bool]$Onedir)
        Expand-Archive -LiteralPath $archive -DestinationPath $staging
        $fresh = Join-Path $staging $top
        $installed = Get-ProgramVersion (Join-Path $fresh 'cortex-embed.exe') $Version
        $before = Join-Path $Dir 'cortex-embed.receipt'
        $wasOnPath = (Test-Path -LiteralPath $before) -and (Get-Content -LiteralPath $before) -contains 'path'
        Write-InstallReceipt $fresh $installed $asset ($AddToPath -or $wasOnPath)
        Move-IntoPlace $fresh $Dir
    }
    finally {
        Remove-Item -LiteralPath $staging -Recurse -Force -ErrorAction SilentlyContinue
    }
    $exe = Join-Path $Dir 'cortex-embed.exe'
    Write-Output "Installed cortex-embed ${installed}: $exe"
    if ($AddToPath) {
        Edit-UserPath -Dir $Dir -Add $true
        Write-Output 'It is on your PATH in windows that you open from now on: cortex-embed serve'
    }
    else {
        Write-Output "Run it:  & '$exe' serve"
        Write-Output 'To have the command by its name, run this script again with -AddToPath.'
    }
    if (Get-Command gh -ErrorAction SilentlyContinue) {
        Write-Output 'Where it was built can be verified with:'
        Write-Output "  gh release download --repo $($table.Repository) --pattern $asset; gh attestation verify $asset --repo $($table.Repository)"
    }
}

# Not @PSBoundParameters, which is another command's under `iex`.
& {
    Install-CortexEmbed -Version $Version -Slim:$Slim -Onedir:$Onedir -Dir $Dir -BaseUrl $BaseUrl -AddToPath:$AddToPath -Uninstall:$Uninstall -Help:$Help
}
